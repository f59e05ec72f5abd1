import { createPool, type DatabasePool } from 'slonik';
import { Refusal, refusalOf } from '../refusal.ts';
import { callSignal, createDriver } from './driver.ts';
import { databaseRefusal } from './errors.ts';
import { createSlots } from './slots.ts';
import type { Params, ParamTypes, Statement } from './statement.ts';

interface PoolState {
  readonly acquired: number;
  readonly idle: number;
  readonly waiting: number;
}

/** The one way to the data: runs defined statements on Slonik's pool. */
export interface Database {
  /**
   * Runs a statement in one round trip and answers its rows, parsed.
   *
   * @param signal cancels the statement in PostgreSQL when it aborts
   * @throws Refusal with the verdict of the statement, or with what the database's failure means to the caller
   */
  run<T extends ParamTypes, R>(statement: Statement<T, R>, params: Params<T>, signal?: AbortSignal): Promise<R[]>;
  state(): PoolState;
  end(): Promise<void>;
}

interface PoolOptions {
  readonly url: string;
  /** Connections to PgBouncer or PostgreSQL, at most. */
  readonly size: number;
}

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

const neverBegun = (cause: unknown): Refusal =>
  new Refusal('DEADLINE', 'the call ended before its turn came', { cause });

/** A statement that was cancelled ended for the reason its signal gives, with the outcome the database gives. */
const ended = (refusal: Refusal, signal: AbortSignal | undefined): Refusal => {
  const why: unknown = signal?.reason;
  return refusal.reason === 'DEADLINE' && why instanceof Refusal
    ? new Refusal(why.reason, why.message, { outcome: refusal.outcome, cause: refusal.cause })
    : refusal;
};

/** Opens the pool. Connections are made when needed, kept warm, and carry no session state to reset. */
export const createDatabase = async ({ url, size }: PoolOptions): Promise<Database> => {
  const pool: DatabasePool = await createPool(url, {
    driverFactory: createDriver(url, 'jeex-persistence'),
    maxPoolSize: size,
    idleTimeout: 'DISABLE_TIMEOUT',
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
  const slots = createSlots(size);
  const query = async <T extends ParamTypes, R>(
    statement: Statement<T, R>,
    params: Params<T>,
    signal: AbortSignal | undefined,
  ): Promise<R[]> => {
    let begun = false;
    let rows: readonly AnyRow[];
    try {
      const work = () => {
        begun = true;
        return pool.any(statement.token(params));
      };
      rows = (await slots.run(work, signal)) as readonly AnyRow[];
    } catch (error) {
      throw ended(begun ? databaseRefusal(error, statement.name) : neverBegun(error), signal);
    }
    return accept(statement, params, rows);
  };
  return {
    run: (statement, params, signal) =>
      signal === undefined
        ? query(statement, params, undefined)
        : callSignal.run(signal, () => query(statement, params, signal)),
    state: () => {
      const { acquiredConnections, idleConnections } = pool.state();
      return { acquired: acquiredConnections, idle: idleConnections, waiting: slots.waiting };
    },
    end: () => pool.end(),
  };
};

/** The only row of an answer that has exactly one, or one at most. */
export const first = <R>(rows: readonly R[]): R | undefined => rows[0];
