import type { Client } from 'pg';
import { type Config, ConfigError, loadConfig } from '../config.ts';
import { endWithin, openClient, within } from '../db/connection.ts';
import { createConsole, type PoolerSettings } from '../db/pgbouncer.ts';
import { createDatabase, type Database } from '../db/pool.ts';
import { type Provided, provideDatabase } from '../db/provide.ts';
import { type InspectedRole, inspectRole } from '../db/role-check.ts';
import { status } from '../migrator/migrate.ts';
import type { Standing } from '../migrator/preflight.ts';
import { Skip } from './check.ts';

const APPLICATION = 'jeex-persistence doctor';
/** For a connection and for each answer, in milliseconds. */
const TIMEOUT_MS = 5000;

/** What is examined: each part is opened when a check first asks for it, and once. */
export interface Patient {
  /** What is wrong with the environment, for a service. */
  readonly problems: readonly string[];
  /** @throws Skip when the environment cannot be understood at all */
  readonly config: Config;
  /** For people: where the database is; null when it cannot be had. */
  note(): Promise<string | null>;
  /** @throws Error when no database is there */
  database(): Promise<Provided>;
  /** As the service connects. @throws Error when that fails */
  connect(): Promise<Client>;
  /** The same connection, for checks that need it to go on. @throws Skip when there is none */
  app(): Promise<Client>;
  /** The service's own way to the data, of one connection. @throws Skip as `app` does */
  db(): Promise<Database>;
  /** @throws Skip as `app` does */
  role(): Promise<InspectedRole>;
  /** @throws Skip as `app` does */
  schema(): Promise<Standing>;
  /** @throws Skip when there is no PgBouncer, or it does not answer */
  pooler(): Promise<PoolerSettings>;
  /** @throws Skip when none is configured; Error when it does not answer */
  askPooler(): Promise<PoolerSettings>;
}

/** Where the database is an embedded one, which some checks leave out. */
export const isEmbedded = ({ config }: Patient): boolean => config.databaseUrl === null;

const once = <T>(work: () => Promise<T>): (() => Promise<T>) => {
  let done: Promise<T> | undefined;
  return () => {
    done ??= work();
    return done;
  };
};

/** Does work that another check's subject has to precede. */
const after = <T, R>(subject: () => Promise<T>, missing: string, work: (found: T) => Promise<R>) =>
  once(async () => {
    let found: T;
    try {
      found = await subject();
    } catch (error) {
      throw error instanceof Skip ? error : new Skip(missing);
    }
    return work(found);
  });

const attempt = (env: NodeJS.ProcessEnv, use: 'service' | 'command'): Config | readonly string[] => {
  try {
    return loadConfig(env, use);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
};

const isConfig = (found: Config | readonly string[]): found is Config => !Array.isArray(found);

/** Opens what checks ask for. @param opened takes what has to be closed again */
export const examine = (env: NodeJS.ProcessEnv, opened: AsyncDisposableStack, signal: AbortSignal): Patient => {
  const asService = attempt(env, 'service');
  const config = isConfig(asService) ? asService : attempt(env, 'command');
  const readConfig = (): Config => {
    if (isConfig(config)) return config;
    throw new Skip('the environment is not understood');
  };

  const database = once(async () => {
    const provided = await provideDatabase(readConfig(), { share: true, log: { info: () => {} }, signal });
    opened.defer(() => provided.stop());
    return provided;
  });
  const connect = once(async () => {
    const client = await openClient((await database()).appUrl, APPLICATION, within(TIMEOUT_MS));
    opened.defer(() => endWithin(client, TIMEOUT_MS));
    return client;
  });
  const unreached = 'the database is not reached';
  const db = after(connect, unreached, async () => {
    const pool = await createDatabase({ url: (await database()).appUrl, size: 1 });
    opened.defer(() => pool.end());
    return pool;
  });
  const askPooler = once(async () => {
    const url = readConfig().pgbouncerAdminUrl;
    if (url === null) throw new Skip('PGBOUNCER_ADMIN_URL is unset');
    const pooler = createConsole(url);
    opened.defer(() => pooler.end());
    return await pooler.settings();
  });

  return {
    problems: isConfig(asService) ? [] : asService,
    get config() {
      return readConfig();
    },
    note: async () => (await database().catch(() => null))?.note ?? null,
    database,
    connect,
    app: after(connect, unreached, async (client) => client),
    db,
    role: after(db, unreached, inspectRole),
    schema: after(connect, unreached, async () => status((await database()).appUrl)),
    pooler: after(askPooler, "PgBouncer's console does not answer", async (settings) => settings),
    askPooler,
  };
};

/** Opens a connection of one's own for a check alone. */
export const withClient = async <T>(url: string, work: (client: Client) => Promise<T>): Promise<T> => {
  const client = await openClient(url, APPLICATION, within(TIMEOUT_MS));
  try {
    return await work(client);
  } finally {
    await endWithin(client, TIMEOUT_MS);
  }
};
