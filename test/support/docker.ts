import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Ended } from './command.ts';

/** The folder of the repository. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** More than any start takes, even with images to build. */
const TIMEOUT_MS = 900_000;
const MAX_OUTPUT = 64 * 1024 * 1024;

interface Given {
  /** Besides this process's own environment; undefined takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** What the command reads from standard input. */
  readonly input?: string;
}

/** Runs a command of Docker to its end, whatever that is. @throws Error only when it cannot be run */
export const docker = (args: readonly string[], { env = {}, input = '' }: Given = {}): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const options = { env: { ...process.env, ...env }, timeout: TIMEOUT_MS, maxBuffer: MAX_OUTPUT };
    const child = execFile('docker', args, options, (error, out, err) => {
      if (error && typeof error.code !== 'number') reject(error);
      else resolve({ code: error ? Number(error.code) : 0, out, err });
    });
    child.stdin?.on('error', () => {}).end(input);
  });

/** What a command that had to succeed has printed. @throws Error with what it said, when it did not */
export const output = ({ code, out, err }: Ended): string => {
  if (code !== 0) throw new Error(`a command of Docker ended with ${code}:\n${out}${err}`);
  return out;
};

/** Runs a command of Docker that has to succeed: what it printed. @throws Error as `output` does */
export const must = async (args: readonly string[], given?: Given): Promise<string> =>
  output(await docker(args, given));

/** Runs a command of Docker that has to succeed, and shows what it says on standard error. @throws Error when it does not */
export const show = async (args: readonly string[]): Promise<void> => {
  const child = spawn('docker', args, { stdio: ['ignore', process.stderr, process.stderr] });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`docker ${args.join(' ')} ended with ${code}`);
};

/** Why containers cannot be run here; null when they can. */
export const missing = async (): Promise<string | null> => {
  for (const args of [['version'], ['compose', 'version']]) {
    const { code, err } = await docker(args).catch((error: Error) => ({ code: 1, err: error.message }));
    if (code !== 0) return `docker ${args.join(' ')} failed: ${err.trim()}`;
  }
  return null;
};
