import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, credentials } from '@grpc/grpc-js';
import { type Clients, clientsOn } from '../support/service.ts';
import { type Spawned, startService } from '../support/spawned.ts';
import { choosePort } from './ports.ts';
import type { Until } from './waiting.ts';

/** A process of the service, always on the same ports. */
export interface Replica {
  readonly name: string;
  /** host:port. */
  readonly grpc: string;
  readonly http: string;
  /** Null while it does not run. */
  readonly pid: number | null;
  /** Clients of every service, on a channel to this process alone; another one after each start. */
  readonly clients: Clients;
  /** What its heap held after its last collection, in bytes; null before the first. */
  heap(): number | null;
  ready(): Promise<boolean>;
  /** Ends it, and waits for that: its exit code, null for one that was killed. */
  end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null>;
  /** Resolves when it is ready. */
  start(): Promise<void>;
  /** The last lines that its processes have logged: errors alone. */
  readonly errors: readonly string[];
  /** What it ended by, although nobody ended it; null for one that runs. */
  readonly died: string | null;
}

interface ReplicaOptions {
  readonly name: string;
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly until: Until;
}

const PROBE = fileURLToPath(new URL('./heap-probe.ts', import.meta.url));

/** Comes back at once when the service does. */
const RECONNECT = { 'grpc.initial_reconnect_backoff_ms': 50, 'grpc.max_reconnect_backoff_ms': 500 } as const;

/** A channel to processes of the service, whose calls go to each of them in turn. */
export const openChannelTo = (addresses: readonly string[]): Client =>
  new Client(`ipv4:${addresses.join(',')}`, credentials.createInsecure(), {
    ...RECONNECT,
    'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    // Otherwise channels of one process share a connection.
    'grpc.use_local_subchannel_pool': 1,
  });

/** Of a replica's log, what is kept. */
const MOST_LINES = 100;

interface Running {
  readonly spawned: Spawned;
  readonly channel: Client;
  readonly clients: Clients;
}

export const openReplica = async (opened: AsyncDisposableStack, options: ReplicaOptions): Promise<Replica> => {
  const { name, folder, env, until } = options;
  const [grpc, http] = [`127.0.0.1:${await choosePort()}`, `127.0.0.1:${await choosePort()}`];
  const heapFile = join(folder, `${name}.heap`);
  let running: Running | null = null;
  let died: string | null = null;
  let logged: readonly string[] = [];
  const errors = (): readonly string[] =>
    [...logged, ...(running?.spawned.log() ?? '').split('\n').filter(Boolean)].slice(-MOST_LINES);

  const launch = async (): Promise<void> => {
    const spawned = await startService({
      GRPC_LISTEN: grpc,
      HTTP_LISTEN: http,
      LOG_LEVEL: 'error',
      ACCESS_LOG: join(folder, `${name}.access.log`),
      AUDIT_READS: 'aggregate',
      NODE_OPTIONS: `--import=${PROBE}`,
      SOAK_HEAP_FILE: heapFile,
      ...env,
    });
    const channel = openChannelTo([grpc]);
    const own = { spawned, channel, clients: clientsOn(channel) };
    running = own;
    spawned.exited.then((code) => {
      if (running !== own) return;
      died = `${name} ended by itself with ${code ?? spawned.process.signalCode}:\n${spawned.log().slice(-2_000)}`;
      running = null;
    });
  };
  const ready = async (): Promise<boolean> => {
    try {
      const { status } = await fetch(`http://${http}/readyz`, { headers: { connection: 'close' } });
      return status === 200;
    } catch {
      return false;
    }
  };
  const end = async (signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> => {
    const ending = running;
    if (ending === null) return null;
    logged = errors();
    running = null;
    ending.channel.close();
    ending.spawned.process.kill(signal);
    return await ending.spawned.exited;
  };
  opened.defer(async () => void (await end('SIGKILL')));
  const start = async (): Promise<void> => {
    await launch();
    await until(ready, `${name} is ready`);
  };
  await start();
  return {
    name,
    grpc,
    http,
    get pid() {
      return running?.spawned.process.pid ?? null;
    },
    get clients() {
      if (running === null) throw new Error(`${name} does not run`);
      return running.clients;
    },
    heap: () => (existsSync(heapFile) ? Number(readFileSync(heapFile, 'utf8')) || null : null),
    ready,
    end,
    start,
    get errors() {
      return errors();
    },
    get died() {
      return died;
    },
  };
};
