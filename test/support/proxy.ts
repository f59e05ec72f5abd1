import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after } from 'node:test';

const SYNC = 'S'.charCodeAt(0);
const SIMPLE_QUERY = 'Q'.charCodeAt(0);
const HEADER_BYTES = 5;

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

/** A proxy before PostgreSQL that counts round trips and connections, closed after the tests. */
export const useProxy = async (url: string): Promise<Proxy> => {
  const target = new URL(url);
  const counts = { roundTrips: 0, connections: 0 };
  const sockets = new Set<Socket>();
  let down = false;
  let silent = false;
  const server = createServer((client) => {
    if (down) {
      client.destroy();
      return;
    }
    counts.connections += 1;
    const upstream = connect(Number(target.port), target.hostname);
    const counter = createCounter(() => {
      counts.roundTrips += 1;
    });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => socket.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on('data', (chunk) => {
      counter(chunk as Buffer);
      if (!silent) upstream.write(chunk);
    });
    upstream.on('data', (chunk) => {
      if (!silent) client.write(chunk);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  after(() => {
    cut();
    server.close();
  });
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
  };
};
