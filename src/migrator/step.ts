import type { Client } from 'pg';
import type { Migration, Script } from './files.ts';
import { forget, record } from './history.ts';
import type { Log } from './session.ts';
import type { Watch } from './watch.ts';

/** One migration, one way. */
export interface Step {
  readonly client: Client;
  readonly migration: Migration;
  readonly action: 'do' | 'undo';
  /** The one of the migration that the action runs. */
  readonly script: Script;
  readonly log: Log | undefined;
  readonly signal: AbortSignal | undefined;
  readonly watch: Watch;
}

/** Writes down that a step was taken. @param started when, by the monotonic clock */
export async function note({ client, migration, action }: Step, started: number): Promise<void> {
  if (action === 'do') await record(client, migration, performance.now() - started);
  else await forget(client, migration.version);
}
