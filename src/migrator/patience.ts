import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from './session.ts';
import type { Watch } from './watch.ts';

/**
 * How long each try may wait for a table, in milliseconds. Whoever comes after a waiting migration waits behind it, so the
 * first tries are shorter than callers notice: making the search index holds a table for seconds, again and again, and is
 * not at it in between. The last ones outlast `deadlock_timeout`, after which PostgreSQL cancels an autovacuum in the way.
 */
export const TABLE_WAITS_MS: readonly number[] = [...Array<number>(12).fill(60), 250, 500, 1000, 2000, 2000, 2000];
/** The same for a batch, which holds rows while it waits for one: never longer than callers notice. */
export const ROW_WAITS_MS: readonly number[] = Array<number>(30).fill(60);
/** Between the tries, in milliseconds, doubled each time: the queue behind the last one drains. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 4000;

/** lock_not_available and deadlock_detected: nothing was changed, and the next try may find the way free. */
const PASSING = new Set(['55P03', '40P01']);

/** Who waits, and who looks meanwhile. */
export interface Patience {
  readonly log?: Log | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly watch: Watch;
}

/**
 * Tries work that needs locks until it gets them, and tells who is in the way.
 * @param waits the longest wait for a lock of each try, in milliseconds
 * @param attempt rolls back what it did before it throws; takes the try's wait
 * @throws what the last attempt threw; the signal's reason when it is stopped in between
 */
export async function patiently(
  { log, signal, watch }: Patience,
  waits: readonly number[],
  attempt: (lockTimeoutMs: number) => Promise<void>,
): Promise<void> {
  for (const [tried, wait] of waits.entries()) {
    signal?.throwIfAborted();
    const stop = tried === 0 ? null : watch.blockers();
    const error = await attempt(wait).then(
      () => null,
      (failure: Error & { code?: string }) => failure,
    );
    const blockers = (await stop?.()) ?? '';
    if (error === null) return;
    const inTheWay = blockers === '' ? '' : `, by the session ${blockers}`;
    if (!PASSING.has(error.code ?? '')) throw error;
    if (tried === waits.length - 1) throw Object.assign(error, { message: `${error.message}${inTheWay}` });
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** tried, LONGEST_PAUSE_MS) * (0.5 + Math.random() / 2);
    log?.info(
      `a table or row that it needs is in use${inTheWay} (${error.message}): rolled back, next try in ` +
        `${(pause / 1000).toFixed(1)} s`,
    );
    await sleep(pause, undefined, { ...(signal && { signal }) });
  }
}
