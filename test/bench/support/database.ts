import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { loadConfig } from '../../../src/config.ts';
import { type Provided, provideDatabase } from '../../../src/db/provide.ts';
import { bootstrap, withDatabase, withLogin } from '../../../src/db/roles.ts';
import { migrate } from '../../../src/migrator/migrate.ts';

/** A migrated PostgreSQL of the benchmark's own, with everything that makes it durable. */
export interface BenchDatabase extends Provided {
  readonly adminUrl: string;
  /** The process whose children are its backends. */
  readonly postmaster: number;
  /** As its superuser, whom no policy holds. */
  readonly admin: Client;
}

const QUIET = { info: () => {} };

/** Starts one under a folder that only this run uses. It ends, and its data goes, with the run. */
export const openDatabase = async (opened: AsyncDisposableStack, signal: AbortSignal): Promise<BenchDatabase> => {
  const folder = mkdtempSync(join(tmpdir(), 'jeex-bench-'));
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  // PostgreSQL's own account has to come through.
  chmodSync(folder, 0o711);
  const config = loadConfig({ DATA_DIR: join(folder, 'data') });
  const database = await provideDatabase(config, { log: QUIET, signal });
  opened.defer(async () => {
    await database.stop();
    // Elsewhere than asked for, where that account cannot come through.
    if (database.folder) rmSync(database.folder, { recursive: true, force: true });
  });
  await migrate(database.migrationUrl, { mode: 'auto', embedded: true, log: QUIET, signal });
  const pidFile = join(database.folder ?? '', 'postgres', 'postmaster.pid');
  const admin = await connect(database.adminUrl ?? '');
  opened.defer(() => admin.end());
  return {
    ...database,
    adminUrl: database.adminUrl ?? '',
    postmaster: Number(readFileSync(pidFile, 'utf8').split('\n')[0]),
    admin,
  };
};

const connect = async (url: string): Promise<Client> => {
  const client = new Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  await client.query('set search_path = jeex');
  return client;
};

/** Another database of the same server, migrated and empty; it goes with the server. */
export const openDatabaseBeside = async ({ adminUrl, secrets }: BenchDatabase, name: string) => {
  if (secrets === null) throw new Error('the server is not an embedded one');
  const { appUrl, ownerUrl } = await bootstrap(adminUrl, { database: name, passwords: secrets, ownServer: true });
  await migrate(ownerUrl, { mode: 'auto', embedded: true, log: QUIET });
  const admin = await connect(withDatabase(adminUrl, name));
  return {
    admin,
    /** What a service on it is started with, besides the usual. */
    env: {
      DATABASE_URL: appUrl,
      MONITOR_DATABASE_URL: withLogin(adminUrl, name, 'jeex_monitor', secrets.monitor),
      LISTEN_DATABASE_URL: appUrl,
    },
    close: () => admin.end(),
  };
};

/** How far the write-ahead log has come, in bytes. */
export const walBytes = async (admin: Client): Promise<number> => {
  const { rows } = await admin.query<{ bytes: string }>("select pg_current_wal_lsn() - '0/0'::pg_lsn as bytes");
  return Number(rows[0]?.bytes);
};
