import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after } from 'node:test';
import { loadConfig } from '../../src/config.ts';
import { provideDatabase } from '../../src/db/provide.ts';
import { migrate } from '../../src/migrator/migrate.ts';
import { until } from './until.ts';

/** A migrated database on a server of its own that a test may stop and start, always on the same port. */
export interface Restartable {
  readonly appUrl: string;
  readonly ownerUrl: string;
  readonly adminUrl: string;
  readonly monitorUrl: string;
  /** As PostgreSQL's shutdown modes: `fast` ends sessions and says so, `immediate` is a crash. */
  stop(mode: 'fast' | 'immediate'): Promise<void>;
  /** SIGKILL to the server's first process; the others notice, and end. */
  kill(): void;
  /** Resolves when the server accepts connections. */
  start(): Promise<void>;
}

/** Stopped and removed after the file's tests. */
export const useRestartable = async (): Promise<Restartable> => {
  const database = await provideDatabase(loadConfig({}), { ephemeral: true, log: { info: () => {} } });
  const cluster = join(database.folder ?? '', 'postgres');
  // How the server was started, its port too; `restart` reads it again.
  const [program = ''] = readFileSync(join(cluster, 'postmaster.opts'), 'utf8').split(' ');
  const { uid, gid } = statSync(cluster);
  const control = async (...args: string[]): Promise<void> => {
    const options = { uid, gid, cwd: '/', env: { LC_ALL: 'C' }, stdio: 'ignore' } as const;
    const pgCtl = spawn(join(dirname(program), 'pg_ctl'), [...args, '-w', '-D', cluster, '-l', '/dev/null'], options);
    const [code] = await once(pgCtl, 'exit');
    if (code !== 0) throw new Error(`pg_ctl ${args.join(' ')} has failed`);
  };
  after(async () => {
    await control('stop', '-m', 'immediate').catch(() => {});
    await database.stop();
  });
  await migrate(database.migrationUrl, { mode: 'auto' });
  return {
    appUrl: database.appUrl,
    ownerUrl: database.migrationUrl,
    adminUrl: database.adminUrl ?? '',
    monitorUrl: database.monitorUrl,
    kill: () => process.kill(Number(readFileSync(join(cluster, 'postmaster.pid'), 'utf8').split('\n')[0]), 'SIGKILL'),
    stop: (mode) => control('stop', '-m', mode),
    // The processes of a server that was killed take a moment to end, and no other starts before.
    start: () =>
      until(
        () =>
          control('restart').then(
            () => true,
            () => false,
          ),
        'the server starts',
      ),
  };
};
