import { AsyncLocalStorage } from 'node:async_hooks';
import { createDriverFactory } from 'slonik';
import { type Backend, cancel } from './cancel.ts';
import { endWithin, openClient } from './connection.ts';
import { Unreplicated } from './errors.ts';
import { TYPES } from './pg-types.ts';
import { current, isStale, renew } from './prepared.ts';

/** A statement on its way, which Slonik knows nothing of: its driver finds it in the asynchronous context. */
interface Passage {
  readonly signal: AbortSignal | undefined;
  /** Called when the statement is about to be sent on a connection. */
  readonly onSend: () => void;
}
export const passage = new AsyncLocalStorage<Passage>();

interface DriverOptions {
  readonly url: string;
  readonly applicationName: string;
  /** Told of each attempt to make a connection, when it has ended. */
  readonly onConnect: (succeeded: boolean) => void;
}

/** How long, in milliseconds, a cancelled statement may take to end before its connection counts as lost. */
const CANCELLED_MS = 3_000;
/** How long, in milliseconds, the goodbye to a connection may take: one that is left open keeps the process from ending. */
const END_MS = 3_000;
/** How long, in milliseconds, a quiet connection goes on before the network is asked whether the server is still there. */
const KEEP_ALIVE_MS = 10_000;
/**
 * How often a statement is sent that meets an outdated plan. A connection that missed one change may meet another behind a
 * pooler, under a text that others use already; the third text is new to everybody.
 */
const MAX_TRIES = 3;

/** Where PostgreSQL warns that it answers a commit as done which no standby has confirmed; its message may be translated. */
const WAITS_FOR_STANDBY = 'SyncRepWaitForLSN';

/** Runs work that is cancelled in PostgreSQL when the signal aborts. Ends once no cancel is on its way any more. */
const cancellable = async <T>(
  backend: Backend,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> => {
  let cancelled: Promise<void> | undefined;
  let lost: NodeJS.Timeout | undefined;
  const onAbort = () => {
    cancelled = cancel(backend);
    // A server that has fallen silent answers neither the statement nor its cancel.
    lost = setTimeout(() => backend.connection.stream.destroy(), CANCELLED_MS);
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await work();
  } finally {
    signal?.removeEventListener('abort', onAbort);
    clearTimeout(lost);
    await cancelled;
  }
};

/**
 * Slonik's driver over `pg`, as its own one but for five things: no startup parameters (PgBouncer refuses them), fixed type
 * parsers (int8 and timestamptz as bigint) without a look-up connection, statements that are cancelled in PostgreSQL when
 * the signal of their call aborts, prepared statements that outlive a change of the schema, and no commit taken for done
 * that was told not to wait for a standby.
 */
export const createDriver = ({ url, applicationName, onConnect }: DriverOptions) =>
  createDriverFactory(async ({ driverConfiguration: { connectionTimeout } }) => {
    const open = async () => {
      let succeeded = false;
      try {
        const client = await openClient(url, applicationName, {
          types: TYPES,
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
    return {
      createPoolClient: async ({ clientEventEmitter }) => {
        const client = await open();
        client.on('error', (error) => clientEventEmitter.emit('error', error));
        let unreplicated = false;
        client.on('notice', ({ routine }) => {
          unreplicated ||= routine === WAITS_FOR_STANDBY;
        });
        const send = async (statement: { name: string; text: string }, values: unknown[], signal?: AbortSignal) => {
          for (let tries = 1; ; tries += 1) {
            const prepared = current(statement);
            try {
              return await client.query({ ...prepared, values });
            } catch (error) {
              if (tries === MAX_TRIES || !isStale(error) || !renew(statement, prepared)) throw error;
              signal?.throwIfAborted();
            }
          }
        };
        return {
          connect: async () => {},
          end: () => endWithin(client, END_MS),
          query: async (text: string, values: unknown[] = [], { name = '' }: { name?: string } = {}) => {
            const { signal, onSend } = passage.getStore() ?? {};
            signal?.throwIfAborted();
            onSend?.();
            const work = () => send({ name, text }, values, signal);
            unreplicated = false;
            const result = await cancellable(client as unknown as Backend, signal, work);
            if (unreplicated) throw new Unreplicated();
            return {
              command: result.command as 'SELECT',
              fields: result.fields.map((field) => ({ dataTypeId: field.dataTypeID, name: field.name })),
              rowCount: result.rowCount ?? 0,
              rows: result.rows,
            };
          },
          stream: () => {
            throw new Error('statements are read in pages, never streamed over a held connection');
          },
        };
      },
    };
  });
