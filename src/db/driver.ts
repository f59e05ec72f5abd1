import { AsyncLocalStorage } from 'node:async_hooks';
import { connect as connectSocket, isIP } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import pg from 'pg';
import { createDriverFactory } from 'slonik';
import { abandon, connectionString, onlyTls13, type Tls } from './connection.ts';

/** The signal of the call whose statements run in this asynchronous context. */
export const callSignal = new AsyncLocalStorage<AbortSignal>();

/** A failure together with whether its statement had been sent: what was never sent was never applied. */
export class StatementFailure extends Error {
  readonly code: string;
  readonly sent: boolean;

  constructor(cause: Error & { code?: string }, sent: boolean) {
    super(cause.message, { cause });
    this.name = 'StatementFailure';
    this.code = cause.code ?? '';
    this.sent = sent;
  }
}

const OID = { int8: 20, timestamptz: 1184, date: 1082, numeric: 1700, interval: 1186, bytea: 17 } as const;

/** `2026-11-22 23:08:30.123456+00` to microseconds since 1970: PostgreSQL's own resolution, which a Date cannot hold. */
const parseMicros = (text: string): bigint => {
  const fraction = /\.(\d{1,6})/.exec(text)?.[1] ?? '';
  const seconds =
    Date.parse(
      text
        .replace(/\.\d+/, '')
        .replace(' ', 'T')
        .replace(/([+-]\d\d)$/, '$1:00'),
    ) / 1000;
  return BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(6, '0'));
};

const parsers = new Map<number, (text: string) => unknown>([
  [OID.int8, BigInt],
  [OID.timestamptz, parseMicros],
  [OID.date, String],
  [OID.numeric, String],
  [OID.interval, String],
]);

const types = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    parsers.get(oid) ?? pg.types.getTypeParser(oid, format as 'text'),
};

/** How long, in milliseconds, a cancelled statement may take to end before its connection counts as lost. */
const CANCELLED_MS = 3_000;

interface Backend {
  readonly host: string;
  readonly port: number;
  readonly processID: number;
  readonly secretKey: number;
  readonly connection: { readonly stream: { destroy(): void }; readonly ssl: Tls };
}

/** How the server was verified when the backend's own connection was made: who gets its key can cancel its statements. */
const verification = ({ host, connection: { ssl } }: Backend): ConnectionOptions => {
  const options = typeof ssl === 'object' ? ssl : {};
  // `pg` hides the client's key from whoever lists the options.
  const key = options.key === undefined ? {} : { key: options.key };
  // An address is compared with the certificate by `host`; as a server's name it must not be sent (RFC 6066).
  return { host, ...options, ...key, ...(isIP(host) === 0 && { servername: host }) };
};

/**
 * Asks the server to cancel what a backend runs, as the protocol has it: on a second connection, by the backend's key,
 * through the same PgBouncer where there is one. Settles when the server has closed that connection: then the request has
 * been acted upon, and cannot hit the backend's next statement.
 */
const cancel = (backend: Backend): Promise<void> =>
  new Promise((resolve) => {
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(80877102, 4);
    request.writeInt32BE(backend.processID, 8);
    request.writeInt32BE(backend.secretKey, 12);
    const socket = backend.host.startsWith('/')
      ? connectSocket(`${backend.host}/.s.PGSQL.${backend.port}`)
      : connectSocket(backend.port, backend.host);
    // A cancel that cannot be delivered leaves the statement to its timeout.
    socket.setTimeout(2000, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => resolve());
    socket.once('connect', () => {
      if (!backend.connection.ssl) {
        socket.write(request);
        return;
      }
      const askForTls = Buffer.alloc(8);
      askForTls.writeInt32BE(8, 0);
      askForTls.writeInt32BE(80877103, 4);
      socket.write(askForTls);
      socket.once('data', () =>
        connectTls({ socket, ...verification(backend) })
          .on('error', () => socket.destroy())
          .write(request),
      );
    });
  });

/** With the password of now. */
const currentUrl = async (url: string): Promise<string> => {
  try {
    return await connectionString(url);
  } catch (error) {
    throw new StatementFailure(error as Error, false);
  }
};

/**
 * Slonik's driver over `pg`, as its own one but for three things: no startup parameters (PgBouncer refuses them), fixed
 * type parsers (int8 and timestamptz as bigint) without a look-up connection, and statements that are cancelled in
 * PostgreSQL when the signal of their call aborts.
 */
export const createDriver = (url: string, applicationName: string) =>
  createDriverFactory(async ({ driverConfiguration }) => ({
    createPoolClient: async ({ clientEventEmitter }) => {
      const client = onlyTls13(
        new pg.Client({
          connectionString: await currentUrl(url),
          application_name: applicationName,
          types: types as unknown as pg.CustomTypesConfig,
          keepAlive: true,
          connectionTimeoutMillis:
            typeof driverConfiguration.connectionTimeout === 'number' ? driverConfiguration.connectionTimeout : 0,
        }),
      );
      client.on('error', (error) => clientEventEmitter.emit('error', error));
      const query = async (text: string, values?: unknown[], options?: { name?: string }) => {
        const signal = callSignal.getStore();
        if (signal?.aborted) {
          throw new StatementFailure(Object.assign(new Error('the call ended first'), { code: '57014' }), false);
        }
        const backend = client as unknown as Backend;
        let cancelled: Promise<void> | undefined;
        let lost: NodeJS.Timeout | undefined;
        const onAbort = () => {
          cancelled = cancel(backend);
          // A server that has fallen silent answers neither the statement nor its cancel.
          lost = setTimeout(() => backend.connection.stream.destroy(), CANCELLED_MS);
        };
        signal?.addEventListener('abort', onAbort, { once: true });
        try {
          const result = await client.query({
            text,
            values: values as unknown[],
            ...(options?.name && { name: options.name }),
          });
          return {
            command: result.command as 'SELECT',
            fields: result.fields.map((field) => ({ dataTypeId: field.dataTypeID, name: field.name })),
            rowCount: result.rowCount ?? 0,
            rows: result.rows,
          };
        } catch (error) {
          throw new StatementFailure(error as Error, true);
        } finally {
          signal?.removeEventListener('abort', onAbort);
          clearTimeout(lost);
          await cancelled;
        }
      };
      return {
        connect: async () => {
          try {
            await client.connect();
          } catch (error) {
            abandon(client);
            throw new StatementFailure(error as Error, false);
          }
        },
        end: () => client.end(),
        query,
        stream: () => {
          throw new Error('statements are read in pages, never streamed over a held connection');
        },
      };
    },
  }));
