import type { Config } from '../config.ts';
import { type Embedded, type Secrets, startEmbedded } from './embedded.ts';
import { findRunning, type Running } from './embedded-running.ts';
import { bootstrap, withDatabase, withLogin } from './roles.ts';

/** The database to work with, wherever it is. */
export interface Provided {
  /** As jeex_app. */
  readonly appUrl: string;
  /** As jeex_owner, direct; the app's own where no other is configured. */
  readonly migrationUrl: string;
  /** As jeex_monitor, direct; the app's own where no other is configured. */
  readonly monitorUrl: string;
  /** As jeex_app, direct, for notifications; null where none is configured. */
  readonly listenUrl: string | null;
  /** As a superuser or an administrator, to the same database; null where none is known. */
  readonly adminUrl: string | null;
  /** For the start line: where the database is, without passwords. */
  readonly note: string;
  /** Of the embedded database; null for a configured one. */
  readonly secrets: Secrets | null;
  /** Where the embedded data is; null for a configured one. */
  readonly folder: string | null;
  /** Resolves when an embedded server ended although nobody stopped it. */
  readonly died: Promise<Error>;
  /** Stops what was started, and waits for its end. */
  stop(): Promise<void>;
}

export interface ProvideOptions {
  /** A temporary embedded database, whatever is configured. */
  readonly ephemeral?: boolean;
  /** For commands: where a service uses the embedded data, its running server is used too, and left running. */
  readonly share?: boolean;
  readonly log: { info(message: string): void };
  readonly signal?: AbortSignal;
}

/** The database's name on an embedded server. */
const EMBEDDED_DATABASE = 'jeex';

/**
 * The configured database, or an embedded one that is started and has its roles; migrating is the caller's.
 * @throws Error saying what to do, when an embedded one does not start; nothing is left running then
 */
export async function provideDatabase(config: Config, options: ProvideOptions): Promise<Provided> {
  const { ephemeral = false, share = false, log, signal } = options;
  if (config.databaseUrl !== null && !ephemeral) return configured(config.databaseUrl, config);
  const running = share && !ephemeral ? await findRunning(config.dataDir, signal) : null;
  if (running !== null) return shared(running);
  const embedded = await startEmbedded({ dataDir: config.dataDir, ephemeral, log, signal });
  try {
    const { secrets } = embedded;
    await bootstrap(embedded.adminUrl, { database: EMBEDDED_DATABASE, passwords: secrets, ownServer: true, log });
    signal?.throwIfAborted();
    return {
      ...embeddedUrls(embedded),
      note: `embedded PostgreSQL 18 on 127.0.0.1:${embedded.port}, ${ephemeral ? 'temporary data' : 'data'} in ${embedded.note}`,
      secrets,
      folder: embedded.folder,
      died: embedded.died,
      stop: embedded.stop,
    };
  } catch (error) {
    await embedded.stop();
    throw error;
  }
}

const embeddedUrls = ({ adminUrl, secrets }: Pick<Embedded, 'adminUrl' | 'secrets'>) => ({
  appUrl: withLogin(adminUrl, EMBEDDED_DATABASE, 'jeex_app', secrets.app),
  migrationUrl: withLogin(adminUrl, EMBEDDED_DATABASE, 'jeex_owner', secrets.owner),
  monitorUrl: withLogin(adminUrl, EMBEDDED_DATABASE, 'jeex_monitor', secrets.monitor),
  listenUrl: withLogin(adminUrl, EMBEDDED_DATABASE, 'jeex_app', secrets.app),
  adminUrl: withDatabase(adminUrl, EMBEDDED_DATABASE),
});

/** What others started is theirs to prepare and to stop. */
const notOurs = { died: new Promise<Error>(() => {}), stop: async () => {} };

const shared = (running: Running): Provided => ({
  ...embeddedUrls(running),
  note: `embedded PostgreSQL 18 of process ${running.holder} on 127.0.0.1:${running.port}, data in ${running.folder}`,
  secrets: running.secrets,
  folder: running.folder,
  ...notOurs,
});

function configured(appUrl: string, config: Config): Provided {
  const { migrationDatabaseUrl, monitorDatabaseUrl, listenDatabaseUrl, adminDatabaseUrl } = config;
  const { host, pathname } = new URL(appUrl);
  const database = decodeURIComponent(pathname.slice(1));
  return {
    appUrl,
    migrationUrl: migrationDatabaseUrl ?? appUrl,
    monitorUrl: monitorDatabaseUrl ?? appUrl,
    listenUrl: listenDatabaseUrl,
    adminUrl: adminDatabaseUrl === null ? null : withDatabase(adminDatabaseUrl, database),
    note: `PostgreSQL ${host}${pathname}`,
    secrets: null,
    folder: null,
    ...notOurs,
  };
}
