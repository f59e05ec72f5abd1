import { setTimeout as sleep } from 'node:timers/promises';
import { whatHappened } from '../db/errors.ts';
import type { PoolerConsole, PoolState } from '../db/pgbouncer.ts';
import type { Logger } from '../log.ts';

/** How long a health call waits for PgBouncer at most, and how long after a failure none waits at all, in milliseconds. */
const PATIENCE_MS = 250;
const RETRY_MS = 1000;

/** The pools of PgBouncer as they are now; none while it does not answer. Never throws, and is bounded in time. */
export type ReadPools = () => Promise<readonly PoolState[]>;

const NONE: readonly PoolState[] = [];

/** Reads pools from a console; without one there are none. A console that falls silent, and one that answers again, is logged. */
export const poolReader = (pooler: PoolerConsole | null, log: Logger): ReadPools => {
  if (pooler === null) return async () => NONE;
  let asked: Promise<readonly PoolState[]> | null = null;
  let failedAt = Number.NEGATIVE_INFINITY;

  const ask = async (): Promise<readonly PoolState[]> => {
    try {
      const pools = await pooler.pools();
      if (Number.isFinite(failedAt)) log.info("PgBouncer's console answers again");
      failedAt = Number.NEGATIVE_INFINITY;
      return pools;
    } catch (error) {
      if (!Number.isFinite(failedAt)) log.warn({ reason: whatHappened(error) }, "PgBouncer's pools are not known");
      failedAt = performance.now();
      return NONE;
    } finally {
      asked = null;
    }
  };

  return async () => {
    if (performance.now() - failedAt < RETRY_MS) return NONE;
    // Calls at the same moment share a question.
    asked ??= ask();
    const patience = new AbortController();
    const tooLate = sleep(PATIENCE_MS, NONE, { signal: patience.signal }).catch(() => NONE);
    return await Promise.race([asked, tooLate]).finally(() => patience.abort());
  };
};
