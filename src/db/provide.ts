import type { Config } from '../config.ts';
import { type Secrets, startEmbedded } from './embedded.ts';
import { bootstrap } from './roles.ts';

/** The database to work with, wherever it is. */
export interface Provided {
  /** As jeex_app. */
  readonly appUrl: string;
  /** As jeex_owner, direct; the app's own where no other is configured. */
  readonly migrationUrl: string;
  /** For the start line: where the database is, without passwords. */
  readonly note: string;
  /** Of the embedded database; null for a configured one. */
  readonly secrets: Secrets | null;
  /** Resolves when an embedded server ended although nobody stopped it. */
  readonly died: Promise<Error>;
  /** Stops what was started, and waits for its end. */
  stop(): Promise<void>;
}

export interface ProvideOptions {
  /** A temporary embedded database, whatever is configured. */
  readonly ephemeral?: boolean;
  readonly log: { info(message: string): void };
  readonly signal?: AbortSignal;
}

/**
 * The configured database, or an embedded one that is started and has its roles; migrating is the caller's.
 * @throws Error saying what to do, when an embedded one does not start; nothing is left running then
 */
export async function provideDatabase(config: Config, options: ProvideOptions): Promise<Provided> {
  const { ephemeral = false, log, signal } = options;
  if (config.databaseUrl !== null && !ephemeral) return configured(config.databaseUrl, config.migrationDatabaseUrl);
  const embedded = await startEmbedded({ dataDir: config.dataDir, ephemeral, log, signal });
  try {
    const { secrets, died, stop, note, port } = embedded;
    const urls = await bootstrap(embedded.adminUrl, { database: 'jeex', passwords: secrets, log });
    signal?.throwIfAborted();
    return {
      appUrl: urls.appUrl,
      migrationUrl: urls.ownerUrl,
      note: `embedded PostgreSQL 18 on 127.0.0.1:${port}, ${ephemeral ? 'temporary data' : 'data'} in ${note}`,
      secrets,
      died,
      stop,
    };
  } catch (error) {
    await embedded.stop();
    throw error;
  }
}

function configured(appUrl: string, migrationUrl: string | null): Provided {
  const { host, pathname } = new URL(appUrl);
  return {
    appUrl,
    migrationUrl: migrationUrl ?? appUrl,
    note: `PostgreSQL ${host}${pathname}`,
    secrets: null,
    died: new Promise(() => {}),
    stop: async () => {},
  };
}
