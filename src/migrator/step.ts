import type { Client } from 'pg';
import type { Migration, Script } from './files.ts';
import { forget, record } from './history.ts';
import type { Log } from './session.ts';

/** One migration, one way. */
export interface Step {
  readonly client: Client;
  readonly migration: Migration;
  readonly action: 'do' | 'undo';
  /** The one of the migration that the action runs. */
  readonly script: Script;
  readonly log: Log | undefined;
}

/** Writes down that a step was taken. @param started when, by the monotonic clock */
export async function note({ client, migration, action }: Step, started: number): Promise<void> {
  if (action === 'do') await record(client, migration, performance.now() - started);
  else await forget(client, migration.version);
}

/** Runs work in a transaction, with so long a wait for each lock at most. @throws what the work threw, rolled back */
export async function transaction<T>(client: Client, lockTimeoutMs: number, work: () => Promise<T>): Promise<T> {
  await client.query(`begin; set local lock_timeout = ${lockTimeoutMs}`);
  try {
    const result = await work();
    await client.query('commit');
    return result;
  } catch (error) {
    // A lost connection has rolled back by itself.
    await client.query('rollback').catch(() => {});
    throw error;
  }
}
