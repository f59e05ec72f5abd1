import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

const ENTRY = fileURLToPath(new URL('../../src/jeex-persistence.js', import.meta.url));

/** What a process needs of this one's environment, and nothing else of it. */
export const BASE_ENVIRONMENT: NodeJS.ProcessEnv = {
  PATH: process.env.PATH,
  // Where the runner keeps compiled modules, relative to where the run was started.
  NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE && resolve(process.env.NODE_COMPILE_CACHE),
};

export interface Spawned {
  readonly grpc: string;
  readonly http: string;
  readonly process: ChildProcess;
  /** Resolves with the exit code. */
  readonly exited: Promise<number | null>;
  /** What it has logged so far. */
  readonly log: () => string;
  /** Asks it to end, and waits for that; again: waits. */
  stop(): Promise<void>;
}

/**
 * Runs the service in a process of its own, as an operator would, until it is ready.
 * @param entry of another release than this one
 * @throws Error with its log when it ends first
 */
export const startService = async (
  env: Readonly<Record<string, string>>,
  args: readonly string[] = [],
  entry = ENTRY,
): Promise<Spawned> => {
  const child = spawn(process.execPath, [entry, 'serve', '--ready-json', ...args], {
    env: { ...BASE_ENVIRONMENT, GRPC_LISTEN: '127.0.0.1:0', HTTP_LISTEN: '127.0.0.1:0', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (chunk) => {
    log += chunk;
  });
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  const stop = async () => {
    child.stdin.end();
    await exited;
  };
  const ready = once(createInterface({ input: child.stdout }), 'line').then(([line]) => JSON.parse(line as string));
  const failed = exited.then((code) => {
    throw new Error(`the service ended with ${code} before it was ready:\n${log}`);
  });
  const { grpc, http } = (await Promise.race([ready, failed])) as { grpc: string; http: string };
  failed.catch(() => {});
  return { grpc, http, process: child, exited, log: () => log, stop };
};

/** The same, ended with the enclosing tests. */
export const spawnService: typeof startService = async (env, args, entry) => {
  const spawned = await startService(env, args, entry);
  after(spawned.stop);
  return spawned;
};
