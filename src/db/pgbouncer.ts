import type { Client } from 'pg';
import { z } from 'zod';
import { cut, endWithin, openClient, within } from './connection.ts';

/** How long PgBouncer has to let its console in, and to answer it, each in milliseconds. */
const TIMEOUT_MS = 1000;
/** The database that PgBouncer itself is. */
const CONSOLE = 'pgbouncer';

/** A setting that a user or a database need not have: an empty text is none. */
const optional = z.preprocess((value) => (value === '' ? null : value), z.coerce.number().nullable());

const settingRow = z.object({ key: z.string(), value: z.string().nullable() });
const databaseRow = z.object({
  name: z.string(),
  host: z.string().nullable(),
  pool_size: z.coerce.number(),
  reserve_pool_size: z.coerce.number(),
  pool_mode: z.string().nullable(),
  max_connections: z.coerce.number(),
});
const userRow = z.object({
  name: z.string(),
  pool_size: optional,
  reserve_pool_size: optional,
  pool_mode: z.string().nullable(),
});
const poolRow = z.object({
  database: z.string(),
  user: z.string(),
  pool_mode: z.string(),
  cl_active: z.coerce.number(),
  cl_waiting: z.coerce.number(),
  sv_active: z.coerce.number(),
  sv_idle: z.coerce.number(),
  sv_used: z.coerce.number(),
  maxwait: z.coerce.number(),
  maxwait_us: z.coerce.number(),
});

const statsRow = z.object({
  database: z.string(),
  avg_xact_count: z.coerce.number(),
  avg_query_count: z.coerce.number(),
  avg_query_time: z.coerce.number(),
  avg_wait_time: z.coerce.number(),
});

/** How a PgBouncer is configured. */
export interface PoolerSettings {
  /** Such as `1.26.1`. */
  readonly version: string;
  /** Its parameters by name; a null one counts as empty. */
  readonly config: ReadonlyMap<string, string>;
  /** What is in force for each database, its own line or the default. */
  readonly databases: readonly z.infer<typeof databaseRow>[];
  /** What its own line says of each user that has one. */
  readonly users: readonly z.infer<typeof userRow>[];
}

/** A pool at one moment. */
export interface PoolState {
  readonly database: string;
  readonly user: string;
  readonly poolMode: string;
  readonly clientsActive: number;
  readonly clientsWaiting: number;
  readonly serversActive: number;
  readonly serversIdle: number;
  /** How long the oldest client waits, in microseconds. */
  readonly maxWaitMicros: number;
}

/** What went through to a database, on average over PgBouncer's last `stats_period`. */
export interface PoolerStats {
  readonly database: string;
  readonly transactionsPerSecond: number;
  readonly queriesPerSecond: number;
  /** Of one query, in seconds. */
  readonly queryTime: number;
  /** What clients waited for a server connection, of each second, in seconds. */
  readonly waitTime: number;
}

/** PgBouncer's console, on one connection that is opened when it is needed, and again when it was lost. */
export interface PoolerConsole {
  /** @throws Error when it does not answer within a second or two */
  settings(): Promise<PoolerSettings>;
  /** The pools of databases. @throws Error when it does not answer within a second or two */
  pools(): Promise<readonly PoolState[]>;
  /** What goes through to databases. @throws Error when it does not answer within a second or two */
  stats(): Promise<readonly PoolerStats[]>;
  end(): Promise<void>;
}

/**
 * The console behind PGBOUNCER_ADMIN_URL; nothing is opened yet.
 * @param url of a role in `stats_users`, and the database `pgbouncer`
 */
export const createConsole = (url: string): PoolerConsole => {
  let opened: Promise<Client> | null = null;
  let last: Promise<unknown> = Promise.resolve();

  const forget = (lost: Promise<Client>): void => {
    if (opened === lost) opened = null;
  };

  const open = (): Promise<Client> => {
    const opening = openClient(url, 'jeex-persistence console', within(TIMEOUT_MS)).then((client) =>
      client.once('end', () => forget(opening)),
    );
    return opening;
  };

  const ask = async <T>(what: string, row: z.ZodType<T>): Promise<T[]> => {
    opened ??= open();
    const using = opened;
    try {
      // Without parameters: the console speaks the simple protocol alone.
      const { rows } = await (await using).query(`show ${what}`);
      return z.array(row).parse(rows);
    } catch (error) {
      forget(using);
      using.then(cut, () => {});
      throw new Error(`PgBouncer's console does not answer "show ${what}"`, { cause: error });
    }
  };

  /** One question after the other, as `pg` will have it. */
  const inTurn = <T>(questions: () => Promise<T>): Promise<T> => {
    const asked = last.then(questions);
    last = asked.catch(() => {});
    return asked;
  };

  return {
    settings: () =>
      inTurn(async () => {
        const [version] = await ask('version', z.object({ version: z.string() }));
        const config = await ask('config', settingRow);
        return {
          version: version?.version.replace(/^PgBouncer /, '') ?? '',
          config: new Map(config.map(({ key, value }) => [key, value ?? ''])),
          databases: (await ask('databases', databaseRow)).filter(({ name }) => name !== CONSOLE),
          users: await ask('users', userRow),
        };
      }),
    pools: () =>
      inTurn(async () => (await ask('pools', poolRow)).filter(({ database }) => database !== CONSOLE).map(stateOf)),
    stats: () =>
      inTurn(async () => (await ask('stats', statsRow)).filter(({ database }) => database !== CONSOLE).map(statsOf)),
    end: async () => {
      await last;
      const client = await opened?.catch(() => null);
      if (client) await endWithin(client, TIMEOUT_MS);
    },
  };
};

const stateOf = (row: z.infer<typeof poolRow>): PoolState => ({
  database: row.database,
  user: row.user,
  poolMode: row.pool_mode,
  clientsActive: row.cl_active,
  clientsWaiting: row.cl_waiting,
  serversActive: row.sv_active,
  // Those that have been idle for long are counted apart, since PgBouncer looks at them before it uses them.
  serversIdle: row.sv_idle + row.sv_used,
  maxWaitMicros: row.maxwait * 1_000_000 + row.maxwait_us,
});

const MICROS = 1_000_000;

const statsOf = (row: z.infer<typeof statsRow>): PoolerStats => ({
  database: row.database,
  transactionsPerSecond: row.avg_xact_count,
  queriesPerSecond: row.avg_query_count,
  queryTime: row.avg_query_time / MICROS,
  waitTime: row.avg_wait_time / MICROS,
});
