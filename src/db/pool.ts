import { createPool, type DatabasePool } from 'slonik';
import { Refusal, refusalOf } from '../refusal.ts';
import type { CallTrace } from '../telemetry/spans.ts';
import type { Timing } from '../telemetry/timing.ts';
import { createDriver, passage } from './driver.ts';
import { databaseRefusal, errorTypeOf, overloaded } from './errors.ts';
import { type Observer, observe } from './observe.ts';
import { createSlots, WaitedTooLong } from './slots.ts';
import type { Params, ParamTypes, Statement } from './statement.ts';

export interface PoolState {
  readonly acquired: number;
  readonly idle: number;
  /** Connections, at most. */
  readonly limit: number;
  /** Statements that wait for one. */
  readonly waiting: number;
  /** Since the pool was opened, as the rest: how often a statement was given a connection. */
  readonly acquisitions: number;
  /** What these waited in all, in milliseconds: for their turn, and for a connection to be made where none was idle. */
  readonly acquisitionWaitMs: number;
  /** Statements refused since their turn had not come in time. */
  readonly acquisitionTimeouts: number;
  /** Attempts to make a connection. */
  readonly connects: number;
  readonly failedConnects: number;
}

/** What a statement is run for: a call, or work of the service's own. */
export interface Asker {
  /** Cancels the statement in PostgreSQL when it aborts. */
  readonly signal?: AbortSignal;
  /** Takes what the statement waited and took. */
  readonly timing?: Timing;
  /** What the statement's span stands below. */
  readonly trace?: CallTrace;
  readonly correlationId?: string;
}

/** The one way to the data: runs defined statements on Slonik's pool. */
export interface Database {
  /**
   * Runs a statement in one round trip and answers its rows, parsed.
   *
   * @throws Refusal with the verdict of the statement, or with what the database's failure means to the caller
   */
  run<T extends ParamTypes, R>(statement: Statement<T, R>, params: Params<T>, asker?: Asker): Promise<R[]>;
  state(): PoolState;
  end(): Promise<void>;
}

interface PoolOptions {
  readonly url: string;
  /** Connections to PgBouncer or PostgreSQL, at most. */
  readonly size: number;
  /** How long a statement waits for its turn on one, in milliseconds, before OVERLOADED; without it as long as its signal lasts. */
  readonly waitMs?: number;
  /** After how long an idle connection is closed, in milliseconds. */
  readonly idleMs?: number;
  /** What its statements are counted by; without it they are not. */
  readonly observer?: Observer;
}

/** Ten minutes, in milliseconds: PgBouncer cuts a connection that was idle for fifteen, also one that a call is about to use. */
const IDLE_MS = 600_000;

interface AnyRow {
  readonly verdict?: string;
  readonly detail?: Readonly<Record<string, string>> | null;
  readonly present?: boolean | null;
  readonly project_id?: string;
}

/** Obeys the verdict, drops the row that stands for "nothing", and compares every project with the one asked for. */
const accept = <T extends ParamTypes, R>(
  statement: Statement<T, R>,
  params: Params<T>,
  rows: readonly AnyRow[],
): R[] => {
  const verdict = rows[0]?.verdict;
  if (verdict !== undefined && verdict !== 'OK') {
    throw refusalOf(verdict, rows[0]?.detail ?? undefined);
  }
  const parsed: R[] = [];
  for (const row of rows) {
    if (row.present === null || row.present === false) continue;
    if (statement.scoped && row.project_id !== params.project) {
      throw new Refusal('INTERNAL', 'a row of another project was about to be answered', { outcome: 'unknown' });
    }
    parsed.push(statement.row.parse(row));
  }
  return parsed;
};

/** A statement that was cancelled ended for the reason its signal gives, with the outcome the database gives. */
const ended = (refusal: Refusal, signal: AbortSignal | undefined): Refusal => {
  const why: unknown = signal?.reason;
  return refusal.reason === 'DEADLINE' && why instanceof Refusal
    ? new Refusal(why.reason, why.message, { outcome: refusal.outcome, cause: refusal.cause })
    : refusal;
};

/** What a statement failed with that has not been given a connection, or that has. */
const refused = (error: unknown, statement: string, sent: boolean, signal: AbortSignal | undefined): Refusal => {
  if (error instanceof WaitedTooLong) return overloaded(error);
  // The signal's own reason is thrown before a statement is sent, also before it is sent again because it was rolled back.
  if (signal?.aborted && (!sent || error === signal.reason)) {
    return new Refusal('DEADLINE', 'the call ended before its turn came', { cause: error });
  }
  return databaseRefusal(error, statement, sent);
};

/** Opens the pool. Connections are made when needed, kept while they are used, and carry no session state to reset. */
export const createDatabase = async (options: PoolOptions): Promise<Database> => {
  const { url, size, waitMs, idleMs = IDLE_MS, observer } = options;
  const counts = { acquisitions: 0, acquisitionWaitMs: 0, acquisitionTimeouts: 0, connects: 0, failedConnects: 0 };
  const onConnect = (succeeded: boolean) => {
    counts.connects += 1;
    if (!succeeded) counts.failedConnects += 1;
  };
  const pool: DatabasePool = await createPool(url, {
    driverFactory: createDriver({ url, applicationName: 'jeex-persistence', onConnect }),
    maxPoolSize: size,
    idleTimeout: idleMs,
    statementTimeout: 'DISABLE_TIMEOUT',
    idleInTransactionSessionTimeout: 'DISABLE_TIMEOUT',
    connectionTimeout: 3_000,
    connectionRetryLimit: 1,
    queryRetryLimit: 2,
    resetConnection: async () => {},
  });
  // Slonik reports here what has already failed a call or ended an idle connection.
  pool.on('error', () => {});
  // Slonik forgets who waits when a connection cannot be made, so nobody waits inside it.
  const slots = createSlots(size, waitMs);
  const query = async <T extends ParamTypes, R>(
    statement: Statement<T, R>,
    params: Params<T>,
    asker: Asker = {},
  ): Promise<R[]> => {
    const { signal } = asker;
    const observed = observe(observer, statement, asker);
    let sent = false;
    const onSend = () => {
      // Slonik sends again what met a deadlock.
      if (sent) return;
      sent = true;
      counts.acquisitions += 1;
      counts.acquisitionWaitMs += observed.send();
    };
    const work = () => passage.run({ signal, onSend }, () => pool.any(statement.token(params)));
    let rows: readonly AnyRow[];
    try {
      rows = (await slots.run(work, signal)) as readonly AnyRow[];
    } catch (error) {
      if (error instanceof WaitedTooLong) counts.acquisitionTimeouts += 1;
      const refusal = ended(refused(error, statement.name, sent, signal), signal);
      observed.end(errorTypeOf(error, refusal));
      throw refusal;
    }
    observed.end(null);
    return accept(statement, params, rows);
  };
  return {
    run: query,
    state: () => {
      const { acquiredConnections: acquired, idleConnections: idle } = pool.state();
      return { acquired, idle, limit: size, waiting: slots.waiting, ...counts };
    },
    end: () => pool.end(),
  };
};

/** The only row of an answer that has exactly one, or one at most. */
export const first = <R>(rows: readonly R[]): R | undefined => rows[0];
