import { spawn } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Account } from './embedded-home.ts';

export interface GuardedOptions {
  readonly program: string;
  readonly args: readonly string[];
  readonly account: Account | null;
  /** Takes both output streams; begins anew. */
  readonly logFile: string;
  /** A folder to remove when the program had to be ended because this process was gone; null: none. */
  readonly removeAfterwards: string | null;
}

/** A program that ends with this process, even when this process is killed. */
export interface Guarded {
  readonly pid: number | undefined;
  /** How it ended: `code 0`, `signal SIGKILL`, or why it did not start. */
  readonly exited: Promise<string>;
  kill(signal: NodeJS.Signals): void;
}

/**
 * The shell becomes the program, and leaves behind a watcher that reads from a pipe this process holds open. A line on
 * the pipe sends the watcher away; the pipe's end means that this process is gone, so the watcher interrupts the program.
 */
const GUARD = `
( (
  read -r _ <&3 && exit
  kill -INT $$ 2>/dev/null
  [ -z "$0" ] && exit
  while kill -0 $$ 2>/dev/null; do sleep 0.1; done
  rm -rf -- "$0"
) >/dev/null 2>&1 & )
exec "$@" 3<&-
`;

/** A link in the log's place is not followed: root could be led to overwrite any file. */
const LOG_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;

/**
 * Starts a program in a session of its own, so that a terminal's Ctrl-C reaches this process alone, which then decides
 * in which order things stop.
 */
export function spawnGuarded(options: GuardedOptions): Guarded {
  const { program, args, account, removeAfterwards } = options;
  const log = openSync(options.logFile, LOG_FLAGS, 0o600);
  const child = spawn('/bin/sh', ['-c', GUARD, removeAfterwards ?? '', program, ...args], {
    cwd: '/',
    env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
    detached: true,
    stdio: ['ignore', log, log, 'pipe'],
    ...(account ? { uid: account.uid, gid: account.gid } : {}),
  });
  closeSync(log);
  const watcher = child.stdio[3];
  if (!(watcher instanceof Socket)) throw new Error('the watcher has no pipe');
  watcher.on('error', () => {});
  const { promise: exited, resolve } = Promise.withResolvers<string>();
  child.on('error', (error) => resolve(error.message));
  child.on('exit', (code, signal) => resolve(signal ? `signal ${signal}` : `code ${code}`));
  exited.then(() => watcher.end('done\n'));
  return { pid: child.pid, exited, kill: (signal) => void child.kill(signal) };
}
