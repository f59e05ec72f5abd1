import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Looped, LoopQuestion } from './plain-loop-worker.ts';
import { PATHS, programIn } from './programs.ts';
import { startWorker } from './worker.ts';

const execute = promisify(execFile);

/** Where Debian keeps the programs of each release. */
const RELEASES = '/usr/lib/postgresql';
const TIMEOUT_MS = 300_000;

/** The newest pgbench there is; null for none. */
const findPgbench = (): string | null => {
  const releases = existsSync(RELEASES) ? readdirSync(RELEASES).sort((a, b) => Number(b) - Number(a)) : [];
  return programIn('pgbench', [...releases.map((release) => join(RELEASES, release, 'bin')), ...PATHS]);
};

export interface Loop extends LoopQuestion {
  /** For the script. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

/** What runs one prepared statement again and again, and nothing around it. */
export interface PlainLoop {
  readonly name: string;
  run(loop: Loop): Promise<Looped>;
}

/** pgbench, or a loop of pg where that is not installed. */
export const plainLoop = (): PlainLoop => {
  const program = findPgbench();
  return program === null
    ? { name: 'a loop of pg', run: runLoop }
    : { name: 'pgbench -M prepared', run: (loop) => runPgbench(program, loop) };
};

const runPgbench = async (program: string, loop: Loop): Promise<Looped> => {
  const { url, clients, seconds, text, values, folder, signal } = loop;
  const script = join(folder, 'pgbench.sql');
  await writeFile(script, `${text.replace(/\$(\d+)/g, ':p$1').replaceAll('\n', ' ')};\n`);
  const { hostname, port, pathname, username, password } = new URL(url);
  const args = [
    ...['--protocol=prepared', '--no-vacuum', `--client=${clients}`, `--time=${seconds}`, `--file=${script}`],
    ...values.map((value, i) => `--define=p${i + 1}=${value}`),
    ...[`--host=${hostname}`, `--port=${port}`, `--username=${username}`, pathname.slice(1)],
  ];
  const options = { signal, env: { PGPASSWORD: password }, timeout: TIMEOUT_MS, killSignal: 'SIGKILL' } as const;
  const { stdout } = await execute(program, args, options);
  const calls = Number(/actually processed: (\d+)/.exec(stdout)?.[1]);
  return { calls, seconds: calls / Number(/tps = ([\d.]+)/.exec(stdout)?.[1]) };
};

const runLoop = async ({ url, clients, seconds, text, values, signal }: Loop): Promise<Looped> => {
  const worker = await startWorker<LoopQuestion, Looped>(new URL('./plain-loop-worker.ts', import.meta.url), signal);
  try {
    return await worker.ask({ url, clients, seconds, text, values });
  } finally {
    await worker.stop();
  }
};
