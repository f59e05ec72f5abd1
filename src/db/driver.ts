import { AsyncLocalStorage } from 'node:async_hooks';
import { type Client, DatabaseError } from 'pg';
import { createDriverFactory } from 'slonik';
import type { Breaker } from './breaker.ts';
import { type Backend, cancellable } from './cancel.ts';
import { connectFailure } from './connect-failure.ts';
import { openClient } from './connection.ts';
import type { Connections } from './connections.ts';
import { isUnreached, Unreplicated } from './errors.ts';
import { exchange, Misdescribed, type Shapes } from './exchange.ts';
import { current, isStale, type Prepared, renew } from './prepared.ts';

/** A statement on its way, which Slonik knows nothing of: its driver finds it in the asynchronous context. */
interface Passage {
  readonly signal: AbortSignal | undefined;
  /** Whether the statement's text alone fixes its columns. */
  readonly fixed: boolean;
  /** Called when the statement is about to be sent on a connection. */
  readonly onSend: () => void;
}

/** What the driver adds: what the statement failed with while its connection is as good as before. */
type Travelling = Passage & { failure?: unknown };
const passages = new AsyncLocalStorage<Travelling>();

/**
 * Has Slonik run a statement. What leaves the connection whole is kept from Slonik, which throws away the connection of
 * whatever fails: a thousand cancelled calls would have a thousand connections made.
 * @throws what the statement failed with
 */
export const onPassage = async <T>(passage: Passage, run: () => Promise<T>): Promise<T> => {
  const travelling: Travelling = { ...passage };
  const answer = await passages.run(travelling, run);
  if (travelling.failure !== undefined) throw travelling.failure;
  return answer;
};

interface DriverOptions {
  readonly url: string;
  readonly applicationName: string;
  /** Told of each attempt to make a connection, when it has ended. */
  readonly onConnect: (succeeded: boolean) => void;
  /** Asked before each attempt; without it each is made. */
  readonly breaker: Breaker | undefined;
  /** What is open; ended by who has made them. */
  readonly connections: Connections<Send>;
  /** Told when there is one more. */
  readonly onOpen: () => void;
}

/** How long, in milliseconds, a quiet connection goes on before the network is asked whether the server is still there. */
const KEEP_ALIVE_MS = 10_000;
/**
 * How often a statement is sent that meets an outdated plan. A connection that missed one change may meet another behind a
 * pooler, under a text that others use already; the third text is new to everybody.
 */
const MAX_TRIES = 3;

/** Where PostgreSQL warns that it answers a commit as done which no standby has confirmed; its message may be translated. */
const WAITS_FOR_STANDBY = 'SyncRepWaitForLSN';

/** Whether a connection may serve the next statement after this failure: PostgreSQL has ended the statement, and no more. */
const isWhole = (error: unknown): boolean => {
  if (error instanceof Unreplicated) return true;
  // Class 08: the two sides do not agree on where they are.
  return (
    error instanceof DatabaseError && error.severity === 'ERROR' && !/^08/.test(error.code ?? '') && !isStale(error)
  );
};

const noRows = () => ({ command: 'SELECT' as const, fields: [], rowCount: 0, rows: [] });

/** How statements run on a connection. */
const sender = (client: Client) => {
  const shapes: Shapes = new Map();
  let unreplicated = false;
  client.on('notice', ({ routine }) => {
    unreplicated ||= routine === WAITS_FOR_STANDBY;
  });

  return async (statement: Prepared, values: readonly unknown[], { signal, fixed }: Passage) => {
    unreplicated = false;
    const known = fixed ? shapes : null;
    const rows = await cancellable(client as unknown as Backend, signal, async () => {
      for (let tries = 1; ; tries += 1) {
        const prepared = current(statement);
        try {
          return await exchange(client, prepared, values, known);
        } catch (error) {
          if (tries === MAX_TRIES) throw error;
          // Reads alone have columns that are taken for known.
          const again = error instanceof Misdescribed || (isStale(error) && renew(statement, prepared));
          if (!again) throw error;
          signal?.throwIfAborted();
        }
      }
    });
    if (unreplicated) throw new Unreplicated();
    // Which columns there are, and what a statement is, is known of each.
    return { command: 'SELECT' as const, fields: [], rowCount: rows.length, rows };
  };
};

/** Runs statements on one connection. */
export type Send = ReturnType<typeof sender>;

/**
 * Slonik's driver over `pg`, as its own one but for seven things: no startup parameters (PgBouncer refuses them), fixed type
 * parsers (int8 and timestamptz as bigint) without a look-up connection, columns described once where they are fixed,
 * statements that are cancelled in PostgreSQL when the signal of their call aborts, prepared statements that outlive a change
 * of the schema, no commit taken for done that was told not to wait for a standby, and connections that outlive what a
 * statement fails with.
 */
export const createDriver = ({ url, applicationName, onConnect, breaker, connections, onOpen }: DriverOptions) =>
  createDriverFactory(async ({ driverConfiguration: { connectionTimeout } }) => {
    const open = async () => {
      let succeeded = false;
      try {
        const client = await openClient(url, applicationName, {
          keepAlive: true,
          keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
          connectionTimeoutMillis: typeof connectionTimeout === 'number' ? connectionTimeout : 0,
        });
        succeeded = true;
        return client;
      } finally {
        onConnect(succeeded);
      }
    };
    /** Whether the connection is as good as before. */
    const survives = (error: unknown): boolean => {
      if (isUnreached(error)) breaker?.missed(connectFailure(error as Error, url));
      const whole = isWhole(error);
      if (whole) breaker?.reached();
      return whole;
    };

    /** The connection that was used last, or a new one. */
    const acquire = async (): Promise<Send> => {
      const idle = connections.take();
      if (idle) return idle;
      const client = await (breaker ? breaker.attempt(open) : open());
      const send = sender(client);
      connections.add(send, client);
      onOpen();
      return send;
    };

    const run = async (statement: Prepared, values: readonly unknown[], passage: Passage) => {
      const { signal, onSend } = passage;
      signal?.throwIfAborted();
      const send = await acquire();
      // Nobody waits any more for a statement whose call ended while its connection was made.
      if (signal?.aborted) {
        connections.give(send);
        throw signal.reason;
      }
      onSend();
      try {
        const answer = await send(statement, values, passage);
        breaker?.reached();
        connections.give(send);
        return answer;
      } catch (error) {
        if (survives(error)) connections.give(send);
        else void connections.drop(send);
        throw error;
      }
    };

    return {
      // Slonik's connections stand for no more than places: which one serves a statement is decided when it is sent.
      createPoolClient: async () => ({
        connect: async () => {},
        end: async () => {},
        query: async (text: string, values: unknown[] = [], { name = '' }: { name?: string } = {}) => {
          const travelling = passages.getStore();
          if (!travelling) throw new Error('a statement came in past the pool');
          try {
            return await run({ name, text }, values, travelling);
          } catch (error) {
            travelling.failure = error;
            return noRows();
          }
        },
        stream: () => {
          throw new Error('statements are read in pages, never streamed over a held connection');
        },
      }),
    };
  });
