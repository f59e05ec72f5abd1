import { fileURLToPath } from 'node:url';
import { type Spawned, startService } from '../../support/spawned.ts';

/** How long a process that was asked to end may take, in milliseconds: longer than the service's own grace. */
const PATIENCE_MS = 45_000;

/** A server in a process of its own. */
export interface ServerProcess {
  /** Of its gRPC door: host:port. */
  readonly address: string;
  readonly pid: number;
  /** Asks it to end, and makes it end when it does not; again: waits. */
  stop(): Promise<void>;
}

/** The servers to compare with, in `servers/`. */
export type Comparator = 'bare' | 'connect' | 'transaction';

/** Starts the service, or what it is compared with. @throws Error with its log when it ends before it is ready */
export const startServer = async (
  env: Readonly<Record<string, string>>,
  comparator?: Comparator,
): Promise<ServerProcess> => {
  const entry = comparator && fileURLToPath(new URL(`../servers/${comparator}.ts`, import.meta.url));
  const spawned = await startService(env, [], entry);
  return { address: spawned.grpc, pid: spawned.process.pid as number, stop: () => end(spawned) };
};

const end = async ({ process: child, stop }: Spawned): Promise<void> => {
  const late = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
  await stop().finally(() => clearTimeout(late));
};
