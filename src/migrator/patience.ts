import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Log } from './session.ts';

/**
 * How long each try may wait for a table, in milliseconds. Whoever comes after a waiting migration waits behind it, so the
 * first tries are shorter than callers notice: making the search index holds a table for seconds, again and again, and is
 * not at it in between. The last ones outlast `deadlock_timeout`, after which PostgreSQL cancels an autovacuum in the way.
 */
const LOCK_TIMEOUTS_MS: readonly number[] = [...Array<number>(12).fill(60), 250, 500, 1000, 2000, 2000, 2000];
/** Between the tries, in milliseconds, doubled each time: the queue behind the last one drains. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 4000;

/** lock_not_available and deadlock_detected: nothing was changed, and the next try may find the way free. */
const PASSING = new Set(['55P03', '40P01']);

/**
 * Tries work that needs locks until it gets them.
 * @param attempt rolls back what it did before it throws; takes the longest wait for a lock in milliseconds
 * @throws what the last attempt threw
 */
export async function patiently(
  client: Client,
  log: Log | undefined,
  attempt: (lockTimeoutMs: number) => Promise<void>,
): Promise<void> {
  for (const [tried, timeout] of LOCK_TIMEOUTS_MS.entries()) {
    try {
      return await attempt(timeout);
    } catch (error) {
      const passing = PASSING.has((error as { code?: string }).code ?? '');
      if (!passing || tried === LOCK_TIMEOUTS_MS.length - 1) throw error;
      const pause = Math.min(FIRST_PAUSE_MS * 2 ** tried, LONGEST_PAUSE_MS) * (0.5 + Math.random() / 2);
      log?.info(
        `a table that it needs is in use (${(error as Error).message}; ${await users(client)}): rolled back, next try in ` +
          `${(pause / 1000).toFixed(1)} s`,
      );
      await sleep(pause);
    }
  }
}

/** Who works on the schema's tables now, for an operator who wonders what to end. */
async function users(client: Client): Promise<string> {
  const { rows } = await client.query<{ pid: number; name: string }>(
    `select distinct l.pid, coalesce(nullif(a.application_name, ''), a.usename, 'no name') as name
     from pg_locks l join pg_class c on c.oid = l.relation left join pg_stat_activity a on a.pid = l.pid
     where l.granted and l.pid <> pg_backend_pid() and c.relnamespace = to_regnamespace('jeex')
       and l.database = (select oid from pg_database where datname = current_database())
     order by l.pid limit 5`,
  );
  if (rows.length === 0) return 'nobody any more';
  return `by the sessions ${rows.map(({ pid, name }) => `${pid} (${name})`).join(', ')}`;
}
