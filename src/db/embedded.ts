import { randomBytes } from 'node:crypto';
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findHome, type Home, makeTemporaryHome } from './embedded-home.ts';
import { type Guarded, spawnGuarded } from './guarded.ts';
import { lockFile } from './lockfile.ts';
import { commandLine, ended } from './processes.ts';

/** Made once per cluster and kept beside it, readable by the service alone. */
export interface Secrets {
  readonly superuser: string;
  readonly owner: string;
  readonly app: string;
  readonly monitor: string;
  /** The text of a key ring, for when none is configured. */
  readonly encryption: string;
}

export interface EmbeddedOptions {
  /** Where the data stays; relative to the working directory. */
  readonly dataDir: string;
  /** Temporary data instead: without fsync, and gone at the end. */
  readonly ephemeral?: boolean;
  readonly log: { info(message: string): void };
  /** Gives the start up; what was started is stopped before the promise rejects. */
  readonly signal?: AbortSignal | undefined;
}

export interface Embedded {
  /** As the superuser, to the database `postgres`. */
  readonly adminUrl: string;
  readonly port: number;
  readonly secrets: Secrets;
  /** Where the data is. */
  readonly folder: string;
  /** The same, and what is special about it, for the start line. */
  readonly note: string;
  /** Resolves when the server ended although nobody stopped it. */
  readonly died: Promise<Error>;
  /** Stops the server and waits for its end; again: the same promise. */
  stop(): Promise<void>;
}

const START_MILLISECONDS = 120_000;
const STOP_MILLISECONDS = 30_000;
const MAX_STARTS = 20;

/** Content of rows and of parameters stays out of the log; memory suits a machine that does other things too. */
const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '100',
  shared_buffers: '64MB',
  max_wal_size: '512MB',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
  log_error_verbosity: 'terse',
  log_min_error_statement: 'panic',
  log_parameter_max_length: '0',
  log_parameter_max_length_on_error: '0',
  shared_preload_libraries: 'pg_stat_statements, auto_explain',
  'pg_stat_statements.max': '1000',
  'pg_stat_statements.track_utility': 'off',
};
const UNSAFE_SETTINGS = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' };

/**
 * Starts a real PostgreSQL for this process, on a free port of 127.0.0.1, and makes its cluster the first time.
 * It ends with this process, however that ends.
 * @throws Error saying what to do, with the end of PostgreSQL's log: when another service uses the data, when the
 *   binaries do not run, when the server does not get ready within two minutes.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const { ephemeral = false, log, signal } = options;
  signal?.throwIfAborted();
  const home = ephemeral ? makeTemporaryHome() : findHome(options.dataDir);
  const release = ephemeral ? () => rmSync(home.folder, { recursive: true, force: true }) : lockHome(home);
  try {
    if (!ephemeral) await stopStale(home, log);
    const secrets = ephemeral ? makeSecrets() : keepSecrets(home);
    if (!existsSync(home.cluster)) await makeCluster(home, secrets, ephemeral, signal);
    checkVersion(home);
    const { server, port } = await startServer(home, ephemeral, signal);
    return describe(home, server, port, secrets, release);
  } catch (error) {
    release();
    throw error;
  }
}

function describe(home: Home, server: Guarded, port: number, secrets: Secrets, release: () => void): Embedded {
  let stopped: Promise<void> | undefined;
  const { promise: died, resolve } = Promise.withResolvers<Error>();
  server.exited.then((how) => {
    if (!stopped) resolve(new Error(`the embedded PostgreSQL ended by itself (${how})\n${logTail(home)}`));
  });
  return {
    adminUrl: adminUrlOf(secrets, port),
    port,
    secrets,
    folder: home.folder,
    note: [home.folder, home.note].filter(Boolean).join('; '),
    died,
    stop: () => {
      stopped ??= stopServer(server).finally(release);
      return stopped;
    },
  };
}

/** The superuser's, to the database `postgres`. */
export const adminUrlOf = (secrets: Secrets, port: number): string =>
  `postgres://postgres:${secrets.superuser}@127.0.0.1:${port}/postgres`;

const lockHome = (home: Home): (() => void) =>
  lockFile(
    join(home.folder, 'service.lock'),
    (pid) => `another service (process ${pid}) uses the data in ${home.folder}: stop it, or set another DATA_DIR`,
  );

/** A server whose service was killed may still be shutting down; only one that serves our own cluster is touched. */
async function stopStale(home: Home, log: EmbeddedOptions['log']): Promise<void> {
  const pidFile = join(home.cluster, 'postmaster.pid');
  if (!existsSync(pidFile)) return;
  const pid = Number(readFileSync(pidFile, 'utf8').split('\n')[0]);
  const command = pid > 0 ? commandLine(pid) : null;
  if (command?.includes(home.cluster)) {
    log.info(`stopping the PostgreSQL (process ${pid}) that an earlier service left on ${home.folder}`);
    for (const [kill, patience] of [
      ['SIGINT', STOP_MILLISECONDS],
      ['SIGQUIT', STOP_MILLISECONDS],
    ] as const) {
      process.kill(pid, kill);
      if (await ended(pid, patience)) return;
    }
    throw new Error(`the PostgreSQL of an earlier service (process ${pid}) on ${home.folder} does not stop`);
  }
  // After a reboot another program may have that process id, which PostgreSQL would take for a living server.
  if (command !== null && !command.includes('postgres')) rmSync(pidFile);
}

const makeSecrets = (): Secrets => {
  const secret = () => randomBytes(32).toString('hex');
  return { superuser: secret(), owner: secret(), app: secret(), monitor: secret(), encryption: `1:${secret()}` };
};

const secretsFile = (home: Home): string => join(home.folder, 'secrets.json');

/** The secrets of a cluster that was made. */
export const readSecrets = (home: Home): Secrets => JSON.parse(readFileSync(secretsFile(home), 'utf8')) as Secrets;

function keepSecrets(home: Home): Secrets {
  const file = secretsFile(home);
  if (existsSync(file)) {
    const kept: Partial<Secrets> = readSecrets(home);
    const whole = { ...makeSecrets(), ...kept };
    // Earlier releases made fewer.
    const lacks = Object.keys(whole).length > Object.keys(kept).length;
    return lacks ? writeSecrets(file, whole) : whole;
  }
  if (existsSync(home.cluster)) {
    throw new Error(`${file} is missing: it holds the passwords of the data in ${home.folder}, and was made with it`);
  }
  return writeSecrets(file, makeSecrets());
}

function writeSecrets(file: string, secrets: Secrets): Secrets {
  writeFileSync(`${file}.new`, `${JSON.stringify(secrets, null, 2)}\n`, { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
  return secrets;
}

/** Makes the cluster beside its final place, so that one that was cut short is never taken for a whole one. */
async function makeCluster(home: Home, secrets: Secrets, ephemeral: boolean, signal?: AbortSignal): Promise<void> {
  for (const name of readdirSync(home.folder)) {
    if (name.startsWith('new-')) rmSync(join(home.folder, name), { recursive: true });
  }
  const draft = join(home.folder, 'new-cluster');
  const passwordFile = join(home.folder, 'new-password');
  mkdirSync(draft, { mode: 0o700 });
  writeFileSync(passwordFile, secrets.superuser, { mode: 0o600, flag: 'wx' });
  if (home.account) {
    for (const path of [draft, passwordFile]) chownSync(path, home.account.uid, home.account.gid);
  }
  const initdb = spawnGuarded({
    program: join(home.binaries, 'bin', 'initdb'),
    args: [
      `--pgdata=${draft}`,
      '--username=postgres',
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--data-checksums',
      '--no-instructions',
      ...(ephemeral ? ['--no-sync'] : []),
    ],
    account: home.account,
    logFile: logFile(home),
    removeAfterwards: ephemeral ? home.folder : null,
  });
  const giveUp = () => initdb.kill('SIGINT');
  signal?.addEventListener('abort', giveUp);
  const how = await initdb.exited;
  signal?.removeEventListener('abort', giveUp);
  rmSync(passwordFile);
  signal?.throwIfAborted();
  if (how !== 'code 0') throw new Error(`PostgreSQL's initdb failed (${how}):\n${logTail(home)}`);
  renameSync(draft, home.cluster);
}

function checkVersion(home: Home): void {
  const version = readFileSync(join(home.cluster, 'PG_VERSION'), 'utf8').trim();
  if (version === '18') return;
  throw new Error(
    `the data in ${home.folder} is of PostgreSQL ${version}, and this service brings PostgreSQL 18: ` +
      'dump it with the release that wrote it, or set another DATA_DIR',
  );
}

/** Another program may take the free port first, and a dead server's last processes may hold its memory for a moment. */
async function startServer(home: Home, ephemeral: boolean, signal?: AbortSignal) {
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    const settings = { ...SETTINGS, ...(ephemeral ? UNSAFE_SETTINGS : {}), port: String(port) };
    const server = spawnGuarded({
      program: join(home.binaries, 'bin', 'postgres'),
      args: ['-D', home.cluster, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      account: home.account,
      logFile: logFile(home),
      removeAfterwards: ephemeral ? home.folder : null,
    });
    const problem = await readiness(home, server, signal);
    if (problem === null) return { server, port };
    await stopServer(server);
    signal?.throwIfAborted();
    const passes = /could not bind|shared memory block .* is still in use/.test(logTail(home));
    if (!passes || attempt === MAX_STARTS) throw new Error(`${problem}:\n${logTail(home)}`);
    await sleep(100);
  }
}

/** Null once the server takes connections, as it notes in its own file (which is what `pg_ctl` waits for too). */
async function readiness(home: Home, server: Guarded, signal?: AbortSignal): Promise<string | null> {
  const deadline = Date.now() + START_MILLISECONDS;
  let end: string | undefined;
  server.exited.then((how) => {
    end = how;
  });
  while (Date.now() < deadline && !signal?.aborted) {
    if (end !== undefined) return `the embedded PostgreSQL did not start (${end})`;
    if (isReady(home, server.pid)) return null;
    await sleep(10);
  }
  return 'the embedded PostgreSQL did not get ready in time';
}

/** Whether that process, as it notes itself, takes connections to the cluster. */
export function isReady(home: Home, pid: number | undefined): boolean {
  const pidFile = join(home.cluster, 'postmaster.pid');
  const lines = existsSync(pidFile) ? readFileSync(pidFile, 'utf8').split('\n') : [];
  return Number(lines[0]) === pid && lines[7]?.trim() === 'ready';
}

/** SIGINT is PostgreSQL's fast shutdown: it ends the sessions, writes a checkpoint, and leaves nothing to recover. */
async function stopServer(server: Guarded): Promise<void> {
  for (const kill of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    server.kill(kill);
    const late = new AbortController();
    const tooLate = sleep(STOP_MILLISECONDS, 'late', { signal: late.signal }).catch(() => 'late');
    const first = await Promise.race([server.exited, tooLate]);
    late.abort();
    if (first !== 'late') return;
  }
}

const logFile = (home: Home): string => join(home.folder, 'postgres.log');

function logTail(home: Home): string {
  const lines = existsSync(logFile(home)) ? readFileSync(logFile(home), 'utf8').trimEnd().split('\n') : [];
  return lines
    .slice(-15)
    .map((line) => `  | ${line}`)
    .join('\n');
}

function freePort(): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const server = createServer().once('error', reject);
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    server.close(() => (address && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port'))));
  });
  return promise;
}
