import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after } from 'node:test';
import { connect as connectTls, TLSSocket } from 'node:tls';
import { testCluster } from './postgres.ts';

const SYNC = 'S'.charCodeAt(0);
const SIMPLE_QUERY = 'Q'.charCodeAt(0);
const HEADER_BYTES = 5;
/** Asks for TLS, before anything else; the answer to it is one byte. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

/** Counts the round trips in what a client sends: each Sync or simple Query is a wait for the server. */
const createCounter = (count: () => void) => {
  let pending: Buffer = Buffer.alloc(0);
  let started = false;
  return (chunk: Buffer) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    for (;;) {
      // The first message of a connection has a length and no type.
      const offset = started ? 1 : 0;
      if (pending.length < offset + 4) return;
      const length = pending.readUInt32BE(offset) + offset;
      if (pending.length < length) return;
      if (started && length >= HEADER_BYTES && (pending[0] === SYNC || pending[0] === SIMPLE_QUERY)) count();
      started = true;
      pending = pending.subarray(length);
    }
  };
};

/** How a proxy goes from a bare connection to one whose protocol it can read, on either side. */
interface Sides {
  client(socket: Socket): Promise<Socket>;
  upstream(socket: Socket): Promise<Socket>;
}

const PLAIN: Sides = {
  client: async (socket) => socket,
  upstream: async (socket) => socket,
};

/** TLS up to the proxy and from it, so that it can count what it passes on. */
const tlsSides = (rootCertificate: string, host: string): Sides => {
  const { pooler } = testCluster();
  if (pooler === null) throw new Error('only the run’s PgBouncer has a certificate for the proxy');
  const ca = readFileSync(rootCertificate, 'utf8');
  return {
    client: async (socket) => {
      await once(socket, 'data');
      socket.write('S');
      return new TLSSocket(socket, { isServer: true, minVersion: 'TLSv1.3', ...pooler.certificate });
    },
    upstream: async (socket) => {
      socket.write(SSL_REQUEST);
      await once(socket, 'data');
      return connectTls({ socket, ca, host, minVersion: 'TLSv1.3' });
    },
  };
};

export interface Proxy {
  /** The same database through the proxy. */
  readonly url: string;
  readonly roundTrips: number;
  readonly connections: number;
  /** Cuts every connection, as a network would. */
  cut(): void;
  /** Cuts every connection and takes no new one, until it is false again. */
  down: boolean;
  /** Passes nothing on any more, and closes nothing: a network that has gone away. */
  silent: boolean;
}

export interface StartedProxy extends Proxy {
  /** Cuts every connection and listens no more. */
  stop(): void;
}

/** A proxy before PostgreSQL or PgBouncer that counts round trips and connections, closed after the tests. */
export const useProxy = async (url: string): Promise<Proxy> => {
  const proxy = await startProxy(url);
  after(proxy.stop);
  return proxy;
};

/** The same, for who closes it. */
export const startProxy = async (url: string): Promise<StartedProxy> => {
  const target = new URL(url);
  const rootCertificate = target.searchParams.get('sslrootcert');
  const sides = rootCertificate === null ? PLAIN : tlsSides(rootCertificate, target.hostname);
  const counts = { roundTrips: 0, connections: 0 };
  const sockets = new Set<Socket>();
  let down = false;
  let silent = false;

  const keep = (both: readonly Socket[]) => {
    for (const socket of both) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        for (const each of both) each.destroy();
      });
    }
  };

  const join = async (bare: { client: Socket; upstream: Socket }) => {
    const [client, upstream] = await Promise.all([sides.client(bare.client), sides.upstream(bare.upstream)]);
    keep([client, upstream, bare.client, bare.upstream]);
    const counter = createCounter(() => {
      counts.roundTrips += 1;
    });
    client.on('data', (chunk) => {
      counter(chunk);
      if (!silent) upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      if (!silent) client.write(chunk);
    });
  };

  const server = createServer({ noDelay: true }, (client) => {
    if (down) {
      client.destroy();
      return;
    }
    counts.connections += 1;
    const upstream = connect({ port: Number(target.port), host: target.hostname, noDelay: true });
    keep([client, upstream]);
    // Whoever leaves before both sides are there takes the other along.
    join({ client, upstream }).catch(() => client.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  const stop = () => {
    cut();
    server.close();
  };
  const proxied = new URL(url);
  proxied.hostname = '127.0.0.1';
  proxied.port = String((server.address() as AddressInfo).port);
  return {
    url: proxied.href,
    get roundTrips() {
      return counts.roundTrips;
    },
    get connections() {
      return counts.connections;
    },
    get down() {
      return down;
    },
    set down(value) {
      down = value;
      if (down) cut();
    },
    get silent() {
      return silent;
    },
    set silent(value) {
      silent = value;
    },
    cut,
    stop,
  };
};
