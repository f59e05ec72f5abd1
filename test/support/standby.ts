import { execFileSync } from 'node:child_process';
import { chownSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import type { Client } from 'pg';
import { type Guarded, spawnGuarded } from '../../src/db/guarded.ts';
import { connectAs } from './postgres.ts';
import type { Restartable } from './restartable.ts';
import { until } from './until.ts';

/** A streaming replica of a test's own server, on a slot of its own. */
export interface Standby {
  /** Returns once it streams. */
  start(): Promise<void>;
  stop(): Promise<void>;
  /** As the superuser, while it runs. */
  connect(): Promise<Client>;
}

/** How a server was started: its program, and its settings as `name=value`. */
const startOf = (cluster: string) => {
  const text = readFileSync(join(cluster, 'postmaster.opts'), 'utf8');
  const options = [...text.matchAll(/"([^"]*)"/g)].map(([, option = '']) => option);
  return { program: text.split(' ')[0] ?? '', settings: options.filter((option) => option.includes('=')) };
};

/**
 * A standby made of a copy of the primary, which is down meanwhile; not started yet, and removed after the tests.
 * @param name of the standby and of its slot
 */
export const useStandby = async (primary: Restartable, name: string): Promise<Standby> => {
  const admin = await connectAs(primary.adminUrl);
  const { data_directory: original } = (await admin.query('show data_directory')).rows[0] as { data_directory: string };
  const { program, settings } = startOf(original);
  const { uid, gid } = statSync(original);
  const folder = mkdtempSync(join(tmpdir(), 'jeex-standby-'));
  after(() => rmSync(folder, { recursive: true }));
  const cluster = join(folder, 'postgres');
  await primary.stop('fast');
  execFileSync('cp', ['-a', original, cluster]);
  await primary.start();
  writeFileSync(join(cluster, 'standby.signal'), '');
  chownSync(folder, uid, gid);

  const owner = await connectAs(primary.adminUrl);
  await owner.query('select pg_create_physical_replication_slot($1, true)', [name]);
  const { username, password, hostname, port } = new URL(primary.adminUrl);
  const place = ['listen_addresses=', `unix_socket_directories=${folder}`, 'port=5432'];
  const way = `host=${hostname} port=${port} user=${username} password=${password} application_name=${name}`;
  const replication = [`primary_conninfo=${way}`, `primary_slot_name=${name}`];
  const args = [...settings, ...place, ...replication].flatMap((setting) => ['-c', setting]);
  const streams = `select from pg_stat_replication where application_name = $1 and state = 'streaming'`;

  let server: Guarded | null = null;
  const stop = async () => {
    server?.kill('SIGINT');
    await server?.exited;
    server = null;
  };
  after(stop);
  return {
    stop,
    start: async () => {
      const logFile = join(folder, 'postgres.log');
      const account = { name: '', uid, gid };
      server = spawnGuarded({ program, args: ['-D', cluster, ...args], account, logFile, removeAfterwards: null });
      await until(async () => (await owner.query(streams, [name])).rowCount === 1, 'the standby streams');
    },
    connect: () => connectAs(`postgres://${username}:${password}@${encodeURIComponent(folder)}:5432/postgres`),
  };
};
