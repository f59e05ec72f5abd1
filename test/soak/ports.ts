import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

/** Below what the system gives to outgoing connections: a port must be free again whenever its server starts again. */
const RANGE = { from: 20_000, count: 10_000 } as const;

const isFree = async (port: number): Promise<boolean> => {
  const server = createServer();
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port === port;
  } catch {
    return false;
  } finally {
    server.close();
  }
};

const given = new Set<number>();

/** A port of 127.0.0.1 that nobody uses, and that this answers once. */
export const choosePort = async (): Promise<number> => {
  for (;;) {
    const port = RANGE.from + Math.floor(Math.random() * RANGE.count);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
};
