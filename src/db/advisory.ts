import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';

/** Session locks of this service, each a number of its own in the first half of the key's space. */
const LOCKS = { bootstrap: 1, migrate: 2, rotate: 3 } as const;
const NAMESPACE = 0x6a656578;
const PATIENCE_MILLISECONDS = 60_000;
const POLL_MILLISECONDS = 200;
const TELL_MILLISECONDS = 10_000;

export interface LockOptions {
  readonly log?: { info(message: string): void } | undefined;
  /** How long to wait, in milliseconds; a minute unless told otherwise. */
  readonly patienceMs?: number | undefined;
  /** Ends the wait with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Takes a lock of the connection's database for as long as the connection lives. It asks again and again instead of
 * waiting inside the server, where the waiting statement's snapshot would hold up a `create index concurrently`. While it
 * waits, it tells who holds the lock, and tells again when that is another one.
 * @throws Error naming the holder when the lock is still taken in the end
 */
export async function waitForLock(
  client: Client,
  name: keyof typeof LOCKS,
  { log, patienceMs = PATIENCE_MILLISECONDS, signal }: LockOptions = {},
): Promise<void> {
  const started = performance.now();
  let told = { who: '', at: 0 };
  for (;;) {
    const key = [NAMESPACE, LOCKS[name]];
    const result = await client.query<{ taken: boolean }>('select pg_try_advisory_lock($1, $2) as taken', key);
    if (result.rows[0]?.taken) return;
    const waited = performance.now() - started;
    const who = await holder(client, name);
    if (waited > patienceMs) {
      const advice = 'run this again when that has ended';
      throw new Error(`waited ${Math.round(waited / 1000)} s for the lock "${name}": ${who}; ${advice}`);
    }
    if (who !== told.who || waited - told.at > TELL_MILLISECONDS) {
      log?.info(`waiting for the lock "${name}": ${who}`);
      told = { who, at: waited };
    }
    signal?.throwIfAborted();
    await sleep(Math.min(POLL_MILLISECONDS, patienceMs), undefined, { ...(signal && { signal }) });
  }
}

/** Whether the connection's own session holds the lock. */
export async function holdsLock(client: Client, name: keyof typeof LOCKS): Promise<boolean> {
  const { rowCount } = await client.query(
    `select from pg_locks where locktype = 'advisory' and granted and pid = pg_backend_pid()
       and classid::bigint = $1 and objid::bigint = $2`,
    [NAMESPACE, LOCKS[name]],
  );
  return rowCount !== 0;
}

async function holder(client: Client, name: keyof typeof LOCKS): Promise<string> {
  const result = await client.query<{ pid: number; application_name: string | null }>(
    `select l.pid, a.application_name from pg_locks l left join pg_stat_activity a using (pid)
     where l.locktype = 'advisory' and l.granted and l.classid::bigint = $1 and l.objid::bigint = $2
       and l.database = (select oid from pg_database where datname = current_database())`,
    [NAMESPACE, LOCKS[name]],
  );
  const row = result.rows[0];
  return row ? `held by the session ${row.pid} (${row.application_name || 'no name'})` : 'its holder has just gone';
}
