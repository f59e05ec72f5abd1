import type { AddressInfo, Server, Socket } from 'node:net';
import { MAX_CONNECTIONS } from './limits.ts';
import { type Address, formatAddress } from './listen.ts';

/** A server of sockets, which knows all of its connections: those in a TLS handshake too. */
export interface Listener {
  /** Resolves with where it listens. Throws when the address is taken. */
  listen(address: Address): Promise<string>;
  /** Takes no more connections, and closes those without a request; resolves when all have ended. Again: waits. */
  close(): Promise<void>;
  /** Ends every connection at once. */
  destroy(): void;
}

/** Of sockets alone, or of HTTP. */
type AnyServer = Server & { closeIdleConnections?(): void };

/** Keeps the connections of a server, `most` at a time. */
export const createListener = (server: AnyServer, most = MAX_CONNECTIONS): Listener => {
  const sockets = new Set<Socket>();
  server.maxConnections = most;
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  let closed: Promise<void> | null = null;
  return {
    listen: (address) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(address.port, address.host, () => {
          server.off('error', reject);
          resolve(formatAddress({ host: address.host, port: (server.address() as AddressInfo).port }));
        });
      }),
    close: () => {
      closed ??= new Promise((resolve) => server.close(() => resolve()));
      // Those that were answered since it began to close.
      server.closeIdleConnections?.();
      return closed;
    },
    destroy: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
};
