import { connect as connectSocket, isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import type { Tls } from './connection.ts';

/** A connected client of `pg`, as far as it takes to cancel what its server process runs. */
export interface Backend {
  readonly host: string;
  readonly port: number;
  readonly processID: number;
  readonly secretKey: number;
  readonly connection: { readonly stream: { destroy(): void }; readonly ssl: Tls };
}

/** How long, in milliseconds, a cancel may take to be delivered. */
const DELIVERY_MS = 2_000;
/** After how long, in milliseconds, a statement that has not ended is cancelled again. */
const AGAIN_MS = 50;
/** How long, in milliseconds, a cancelled statement may take to end before its connection counts as lost. */
const CANCELLED_MS = 3_000;

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
 * @returns false when that took too long: the request may still be on its way, and hit a later statement
 */
export const cancel = (backend: Backend): Promise<boolean> =>
  new Promise((resolve) => {
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(80877102, 4);
    request.writeInt32BE(backend.processID, 8);
    request.writeInt32BE(backend.secretKey, 12);
    const socket = backend.host.startsWith('/')
      ? connectSocket(`${backend.host}/.s.PGSQL.${backend.port}`)
      : connectSocket(backend.port, backend.host);
    let settled = true;
    // A cancel that cannot be delivered leaves the statement to its timeout.
    socket.setTimeout(DELIVERY_MS, () => {
      settled = false;
      socket.destroy();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => resolve(settled));
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

/** Cancels until it is over: a request that overtakes its statement on the way finds nothing to cancel. */
const cancelUntil = async (over: AbortSignal, backend: Backend): Promise<void> => {
  // A server that has fallen silent answers neither the statement nor its cancel.
  const lost = setTimeout(() => backend.connection.stream.destroy(), CANCELLED_MS);
  while (!over.aborted) {
    if (!(await cancel(backend))) backend.connection.stream.destroy();
    await sleep(AGAIN_MS, undefined, { signal: over }).catch(() => {});
  }
  clearTimeout(lost);
};

/** Runs work that is cancelled in PostgreSQL when the signal aborts. Ends once no cancel is on its way any more. */
export const cancellable = async <T>(
  backend: Backend,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> => {
  let over: AbortController | undefined;
  let cancelling: Promise<void> | undefined;
  const onAbort = () => {
    over = new AbortController();
    cancelling = cancelUntil(over.signal, backend);
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await work();
  } finally {
    signal?.removeEventListener('abort', onAbort);
    over?.abort();
    await cancelling;
  }
};
