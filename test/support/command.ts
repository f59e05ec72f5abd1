import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { BASE_ENVIRONMENT } from './spawned.ts';

const ENTRY = fileURLToPath(new URL('../../src/jeex-persistence.js', import.meta.url));

/** How a command ended, and what it said. */
export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/**
 * Runs a command to its end, as an operator would.
 * @param input what it reads from standard input
 * @param entry of another release than this one
 */
export const runCommand = (
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  input = '',
  entry = ENTRY,
): Promise<Ended> =>
  new Promise((resolve) => {
    const options = { env: { ...BASE_ENVIRONMENT, ...env }, timeout: 60_000 };
    const child = execFile(process.execPath, [entry, ...args], options, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    );
    // A command that does not read its input may have ended first.
    child.stdin?.on('error', () => {}).end(input);
  });
