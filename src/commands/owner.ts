import type { Client } from 'pg';
import { type Config, ConfigError, loadConfig } from '../config.ts';
import { openClient } from '../db/connection.ts';
import { type Provided, provideDatabase } from '../db/provide.ts';
import { migrate } from '../migrator/migrate.ts';
import { untilInterrupted } from './interrupt.ts';
import { tell } from './output.ts';

/** What a command of the schema's owner works with. */
export interface Owner {
  readonly config: Config;
  readonly database: Provided;
  /** As jeex_owner, direct, without a limit on the time of statements and transactions. */
  readonly client: Client;
  /** Aborts when the command is interrupted. */
  readonly signal: AbortSignal;
}

/**
 * Runs work as the schema's owner on the configured database, or on the embedded one, which a service may be using.
 * @throws ConfigError when a configured database lacks the owner's URL; Error when its schema is not this release's
 */
export async function asOwner(work: (owner: Owner) => Promise<void>): Promise<void> {
  const config = ownerConfig();
  await untilInterrupted(async (signal) => {
    await using opened = new AsyncDisposableStack();
    const database = await provideDatabase(config, { share: true, log: { info: tell }, signal });
    opened.defer(() => database.stop());
    await migrate(database.migrationUrl, { mode: 'check' });
    const client = await openClient(database.migrationUrl, 'jeex-persistence');
    opened.defer(() => client.end());
    await client.query('set search_path = jeex; set statement_timeout = 0; set transaction_timeout = 0');
    await client.query('set idle_in_transaction_session_timeout = 0');
    await work({ config, database, client, signal });
  });
}

/** The configuration of a command that works as jeex_owner. @throws ConfigError when a configured database lacks that role's URL */
export function ownerConfig(): Config {
  const config = schemaConfig();
  if (config.databaseUrl !== null && config.migrationDatabaseUrl === null) {
    throw new ConfigError([
      'MIGRATION_DATABASE_URL: expected the URL of the role jeex_owner, since DATABASE_URL is set',
    ]);
  }
  return config;
}

/** The configuration of a command on the schema: the owner's URL alone says enough, and a container that migrates has no other. */
export function schemaConfig(): Config {
  const config = loadConfig(process.env, 'command');
  return { ...config, databaseUrl: config.databaseUrl ?? config.migrationDatabaseUrl };
}
