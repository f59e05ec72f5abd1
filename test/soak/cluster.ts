import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { loadConfig } from '../../src/config.ts';
import { openClient } from '../../src/db/connection.ts';
import type { Account } from '../../src/db/embedded-home.ts';
import { type Guarded, spawnGuarded } from '../../src/db/guarded.ts';
import { ended } from '../../src/db/processes.ts';
import { provideDatabase } from '../../src/db/provide.ts';
import type { Login } from '../../src/db/role-table.ts';
import { bootstrap, withLogin } from '../../src/db/roles.ts';
import { migrate } from '../../src/migrator/migrate.ts';
import type { Secrets } from '../support/container.ts';
import { choosePort } from './ports.ts';
import type { Until } from './waiting.ts';

/** A PostgreSQL 18 of the run's own, that keeps what it has acknowledged (fsync is on), always on the same port. */
export interface Cluster {
  readonly port: number;
  urlAs(login: Login): string;
  /** A superuser's session, which is the caller's to end. */
  openSession(): Promise<Client>;
  /** Asks as a superuser, on a connection of its own. */
  ask<R>(sql: string, values?: readonly unknown[]): Promise<R[]>;
  /**
   * SIGKILL to all its processes at once, or to the first one alone, whose others notice; resolves when none of them is left.
   * @param whole all at once
   */
  kill(whole: boolean): Promise<void>;
  /** Resolves when it accepts connections; one that runs is left alone. */
  start(): Promise<void>;
  /** Resolves when it has ended. */
  stop(): Promise<void>;
}

interface ClusterOptions {
  readonly folder: string;
  /** Where its write-ahead log goes instead. */
  readonly walFolder: string | null;
  /** Passwords and certificates. */
  readonly secrets: Secrets;
  readonly until: Until;
  readonly signal: AbortSignal;
}

const DATABASE = 'jeex';
const QUIET = { info: () => {} };
/** More than its processes take to end, in milliseconds. */
const END_MS = 30_000;
const CONNECT_MS = 60_000;
/** Deadlocks are found in this time: many are made. PgBouncer is told to expect TLS. */
const SETTINGS = {
  deadlock_timeout: '200ms',
  ssl: 'on',
  min_wal_size: '32MB',
  max_wal_size: '256MB',
  restart_after_crash: 'on',
};

interface Made {
  readonly cluster: string;
  /** How its server is started: the program, then its options. */
  readonly command: readonly string[];
  /** As the superuser, to the service's database, on a port that it had. */
  readonly superUrl: string;
}

/** Makes and prepares the cluster; it is not running then. */
const make = async ({ folder, secrets, signal }: ClusterOptions): Promise<Made> => {
  const database = await provideDatabase(loadConfig({ DATA_DIR: folder }), { log: QUIET, signal });
  try {
    await bootstrap(database.adminUrl ?? '', { database: DATABASE, passwords: secrets.passwords, ownServer: true });
    const ownerUrl = withLogin(database.migrationUrl, DATABASE, 'jeex_owner', secrets.passwords.owner);
    await migrate(ownerUrl, { mode: 'auto', signal });
  } finally {
    await database.stop();
  }
  const cluster = join(database.folder ?? '', 'postgres');
  const written = readFileSync(join(cluster, 'postmaster.opts'), 'utf8');
  const [program = ''] = written.split(' ');
  const options = [...written.matchAll(/"([^"]*)"/g)].map(([, option = '']) => option);
  return { cluster, command: [program, ...options], superUrl: database.adminUrl ?? '' };
};

/** Whoever owns the cluster runs its server; null: this process's own account. */
const ownerOf = (cluster: string): Account | null => {
  const { uid, gid } = statSync(cluster);
  return process.getuid?.() === 0 ? { name: String(uid), uid, gid } : null;
};

const own = (path: string, account: Account | null): void => {
  if (account) chownSync(path, account.uid, account.gid);
};

/** What PgBouncer verifies, readable by the server alone. */
const putCertificate = (cluster: string, secrets: Secrets, account: Account | null): Record<string, string> => {
  const put = (name: string): string => {
    const target = join(cluster, name);
    copyFileSync(secrets.file(`postgres/tls/${name}`), target);
    chmodSync(target, 0o600);
    own(target, account);
    return target;
  };
  return { ssl_cert_file: put('tls.crt'), ssl_key_file: put('tls.key') };
};

const moveWal = (cluster: string, walFolder: string, account: Account | null): void => {
  const [from, to] = [join(cluster, 'pg_wal'), join(walFolder, 'pg_wal')];
  execFileSync('cp', ['--archive', from, to]);
  execFileSync('rm', ['--recursive', from]);
  own(to, account);
  symlinkSync(to, from);
};

/** The processes that one has started. */
const childrenOf = (parent: number): number[] =>
  readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && parentOf(pid) === parent);

const parentOf = (pid: number): number | null => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    // It has ended meanwhile.
    return null;
  }
};

const sigkill = (pid: number): void => {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
};

const onPort = (url: string, port: number): string => {
  const changed = new URL(url);
  changed.port = String(port);
  return changed.href;
};

/** Makes a cluster with the roles, the database and the schema of the service, and starts it. */
export const openCluster = async (opened: AsyncDisposableStack, options: ClusterOptions): Promise<Cluster> => {
  const { walFolder, secrets, until } = options;
  const { cluster, command, superUrl: madeUrl } = await make(options);
  const account = ownerOf(cluster);
  const port = await choosePort();
  const settings = { ...SETTINGS, ...putCertificate(cluster, secrets, account), port: String(port) };
  if (walFolder !== null) moveWal(cluster, walFolder, account);
  const [program = '', ...before] = command;
  const args = [...before, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  const superUrl = onPort(madeUrl, port);

  let server: Guarded | null = null;
  const spawn = (): Guarded => {
    const started = spawnGuarded({
      program,
      args,
      account,
      logFile: join(cluster, '../postgres.log'),
      removeAfterwards: null,
    });
    started.exited.then(() => {
      if (server === started) server = null;
    });
    return started;
  };
  const openSession = () => openClient(superUrl, 'soak', { connectionTimeoutMillis: CONNECT_MS });
  const accepts = async (): Promise<boolean> => {
    server ??= spawn();
    try {
      const session = await openSession();
      await session.end();
      return true;
    } catch {
      return false;
    }
  };
  const end = async (): Promise<void> => {
    const running = server;
    running?.kill('SIGINT');
    await running?.exited;
  };
  opened.defer(async () => {
    server?.kill('SIGQUIT');
    await server?.exited;
  });
  return {
    port,
    urlAs: (login) => withLogin(superUrl, DATABASE, `jeex_${login}`, secrets.passwords[login]),
    openSession,
    ask: async (sql, values = []) => {
      const session = await openSession();
      try {
        return (await session.query(sql, [...values])).rows;
      } finally {
        await session.end();
      }
    },
    kill: async (whole) => {
      if (server?.pid === undefined) return;
      const { pid, exited } = server;
      const children = childrenOf(pid);
      for (const each of [pid, ...(whole ? children : [])]) sigkill(each);
      await exited;
      // No other server starts on the data before the last of them has ended.
      for (const child of children) await until(() => ended(child, 0), 'a process of a killed PostgreSQL ends', END_MS);
    },
    start: () => until(accepts, 'PostgreSQL accepts connections'),
    stop: end,
  };
};
