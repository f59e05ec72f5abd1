import { createPool, type DatabasePool } from 'slonik';
import type { CallTrace } from '../telemetry/spans.ts';
import type { Timing } from '../telemetry/timing.ts';
import { type AnyRow, accept } from './accept.ts';
import type { Breaker, BreakerState } from './breaker.ts';
import { createCoalescer, type RunRows } from './coalesce.ts';
import { createConnections } from './connections.ts';
import { createDriver, onPassage, type Send } from './driver.ts';
import { errorTypeOf } from './errors.ts';
import type { Share } from './fair-queue.ts';
import { createLeases } from './leases.ts';
import { type Observer, observe } from './observe.ts';
import { refused } from './refused.ts';
import { isHarmless, ONCE, type Retries, type RetryCounts } from './retry.ts';
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
  /** Statements that were sent again. */
  readonly retries: RetryCounts;
  readonly breaker: BreakerState;
}

/** What a statement is run for, and on whose account it waits: a call, or work of the service's own. */
export interface Asker extends Share {
  /** Cancels the statement in PostgreSQL when it aborts. */
  readonly signal?: AbortSignal;
  /** Takes what the statement waited and took. */
  readonly timing?: Timing;
  /** What the statement's span stands below. */
  readonly trace?: CallTrace;
  readonly correlationId?: string;
  /** Those a shared statement is run for; without it, the asker alone. */
  readonly sharers?: readonly Asker[];
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
  /** Sends statements again; without it each is sent once. */
  readonly retries?: Retries;
  /** Asked before connections are made; without it each attempt is made. */
  readonly breaker?: Breaker;
}

/** Ten minutes, in milliseconds: PgBouncer cuts a connection that was idle for fifteen, also one that a call is about to use. */
const IDLE_MS = 600_000;
/**
 * Connections that are made at the same time where there is none, and as many more as there are: after a restart, all at once
 * would keep the server from its work.
 */
const CONNECTING = 4;

/** Opens the pool. Connections are made when needed, kept while they are used, and carry no session state to reset. */
export const createDatabase = async (options: PoolOptions): Promise<Database> => {
  const { url, size, waitMs, idleMs = IDLE_MS, observer, retries = ONCE, breaker } = options;
  const counts = { acquisitions: 0, acquisitionWaitMs: 0, acquisitionTimeouts: 0, connects: 0, failedConnects: 0 };
  const onConnect = (succeeded: boolean) => {
    counts.connects += 1;
    if (!succeeded) counts.failedConnects += 1;
  };
  const connections = createConnections<Send>(idleMs);
  // Slonik forgets who waits when a connection cannot be made, so nobody waits inside it.
  const slots = createSlots(size, waitMs, () => 2 * (connections.acquired + connections.idle) + CONNECTING);
  const pool: DatabasePool = await createPool(url, {
    driverFactory: createDriver({
      url,
      applicationName: 'jeex-persistence',
      onConnect,
      breaker,
      connections,
      onOpen: () => slots.widen(),
    }),
    maxPoolSize: size,
    idleTimeout: 'DISABLE_TIMEOUT',
    maximumConnectionAge: 'DISABLE_TIMEOUT',
    statementTimeout: 'DISABLE_TIMEOUT',
    idleInTransactionSessionTimeout: 'DISABLE_TIMEOUT',
    connectionTimeout: 3_000,
    connectionRetryLimit: 1,
    // It would send again at once, on the same connection.
    queryRetryLimit: 0,
    resetConnection: async () => {},
  });
  // Slonik reports here what has already failed a call or ended an idle connection.
  pool.on('error', () => {});
  const leases = createLeases(pool);
  const runRows: RunRows = async (statement, params, asker, asked) => {
    const { signal } = asker;
    const observed = observe(observer, statement, asker, asked);
    let sent = false;
    const onSend = () => {
      sent = true;
      counts.acquisitions += 1;
      counts.acquisitionWaitMs += observed.send();
    };
    const passage = { signal, fixed: statement.fixed, onSend };
    const work = () => leases.run((connection) => onPassage(passage, () => connection.any(statement.token(params))));
    let rows: readonly AnyRow[];
    try {
      rows = (await slots.run({ lane: statement.lane, share: asker, signal, work })) as readonly AnyRow[];
    } catch (error) {
      const refusal = refused(error, statement.name, sent, signal);
      if (refusal.cause instanceof WaitedTooLong) counts.acquisitionTimeouts += 1;
      observed.end(errorTypeOf(error, refusal));
      throw refusal;
    }
    observed.end(null);
    return rows;
  };
  /** Each try waits for its own turn. */
  const repeated = <T extends ParamTypes, R, A>(
    statement: Statement<T, R>,
    params: Params<T>,
    { signal, correlationId }: Asker,
    attempt: (tries: number) => Promise<A>,
  ): Promise<A> =>
    retries.run({ statement: statement.name, harmless: isHarmless(statement, params), signal, correlationId }, attempt);
  const runAgain: RunRows = (statement, params, asker, asked) =>
    repeated(statement, params, asker, (tries) => runRows(statement, params, asker, tries === 1 ? asked : undefined));
  const coalescer = createCoalescer(runAgain);
  return {
    run: async (statement, params, asker = {}) =>
      statement.shared === null
        ? repeated(statement, params, asker, async () =>
            accept(statement, params, await runRows(statement, params, asker)),
          )
        : coalescer.run(statement, params, asker),
    state: () => {
      const { acquired, idle } = connections;
      return {
        acquired,
        idle,
        limit: size,
        waiting: slots.waiting + coalescer.waiting,
        ...counts,
        retries: { ...retries.counts },
        breaker: breaker?.state ?? 'closed',
      };
    },
    end: async () => {
      leases.end();
      await pool.end();
      await connections.end();
    },
  };
};

/** The only row of an answer that has exactly one, or one at most. */
export const first = <R>(rows: readonly R[]): R | undefined => rows[0];
