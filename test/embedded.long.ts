import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';
import { loadConfig } from '../src/config.ts';
import { startEmbedded } from '../src/db/embedded.ts';
import { provideDatabase } from '../src/db/provide.ts';
import { until } from './support/until.ts';

const SERVICE = fileURLToPath(new URL('support/embedded-service.ts', import.meta.url));
const isRoot = process.getuid?.() === 0;

/** A folder that PostgreSQL's account can reach, with a name that a shell or a URL would stumble over. */
function newFolder(mode = 0o711): string {
  const folder = mkdtempSync(join(tmpdir(), 'jeex "embedded" $x '));
  chmodSync(folder, mode);
  after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'data');
}

const notes: string[] = [];
const start = (dataDir: string, options: { ephemeral?: boolean; signal?: AbortSignal } = {}) =>
  startEmbedded({ dataDir, log: { info: (note) => void notes.push(note) }, ...options });

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

/** The processes whose arguments name the folder: the server and the watcher beside it. */
function processesOf(folder: string): { pid: number; command: string }[] {
  const lines = execFileSync('ps', ['-eo', 'pid=,args=', '-ww'], { encoding: 'utf8' }).split('\n');
  return lines
    .map((line) => ({ pid: Number.parseInt(line, 10), command: line.trim().replace(/^\d+ /, '') }))
    .filter(({ pid, command }) => pid !== process.pid && command.includes(folder) && !command.includes(SERVICE));
}

const nothingRuns = (folder: string) => until(() => processesOf(folder).length === 0, 'nothing runs');

async function startService(...args: string[]): Promise<{ child: ChildProcess; adminUrl: string; folder: string }> {
  const child = spawn(process.execPath, [SERVICE, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  after(() => child.kill('SIGKILL'));
  assert(child.stdout);
  const [line] = await once(createInterface(child.stdout), 'line');
  const { adminUrl, note } = JSON.parse(line) as { adminUrl: string; note: string };
  return { child, adminUrl, folder: note.split(';')[0] as string };
}

async function kill(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

suite('the embedded PostgreSQL', () => {
  test('is a real PostgreSQL 18 on loopback, with checksums, a fixed locale and no content in its log', async () => {
    const folder = newFolder();
    const server = await start(folder);
    const names = [
      'server_version',
      'data_checksums',
      'fsync',
      'listen_addresses',
      'log_error_verbosity',
      'log_parameter_max_length',
      'shared_preload_libraries',
      'TimeZone',
    ];
    const [settings] = await query(
      server.adminUrl,
      `select ${names.map((name) => `current_setting('${name}')`).map((call, i) => `${call} as s${i}`)},
       (select format('%s %s', datlocprovider, datlocale) from pg_database where datname = 'template0') as locale`,
    );
    const LIBRARIES = 'pg_stat_statements, auto_explain';
    const [version, ...others] = Object.values(settings ?? {});
    assert.match(String(version), /^18\./);
    assert.deepEqual(others, ['on', 'on', '127.0.0.1', 'terse', '0', LIBRARIES, 'UTC', 'b C.UTF-8']);
    await assert.rejects(query(server.adminUrl, "select 'private'::int"));
    await assert.rejects(query(server.adminUrl.replace(/:[0-9a-f]{64}@/, ':wrong@'), 'select 1'), { code: '28P01' });
    assert.doesNotMatch(readFileSync(join(folder, 'postgres.log'), 'utf8'), /select/);
    assert.equal(statSync(join(folder, 'secrets.json')).mode & 0o777, 0o600);
    await server.stop();
    await nothingRuns(folder);
  });

  test('finds its data again, and lets one service at a time use it', async () => {
    const folder = newFolder();
    const first = await start(folder);
    await query(first.adminUrl, 'create table kept as select 42 as answer');
    await assert.rejects(
      start(folder),
      /another service \(process \d+\) uses the data .*: stop it, or set another DATA_DIR/,
    );
    assert.deepEqual(await query(first.adminUrl, 'select * from kept'), [{ answer: 42 }]);
    await Promise.all([first.stop(), first.stop()]);
    // As release 0.1.0 left them, which had neither a key ring nor a monitor.
    const { encryption, monitor, ...rest } = first.secrets;
    writeFileSync(join(folder, 'secrets.json'), JSON.stringify({ ...rest, pageToken: 'x' }));
    const second = await start(folder);
    assert.equal(second.secrets.superuser, first.secrets.superuser);
    assert.match(second.secrets.encryption, /^1:[0-9a-f]{64}$/);
    assert.match(second.secrets.monitor, /^[0-9a-f]{64}$/);
    assert.ok(second.secrets.encryption !== encryption && second.secrets.monitor !== monitor);
    assert.deepEqual(JSON.parse(readFileSync(join(folder, 'secrets.json'), 'utf8')), {
      ...second.secrets,
      pageToken: 'x',
    });
    assert.deepEqual(await query(second.adminUrl, 'select * from kept'), [{ answer: 42 }]);
    await second.stop();
    await nothingRuns(folder);
  });

  test('is shared with a command while a service uses it, and started for one otherwise', async () => {
    const config = loadConfig({ DATA_DIR: newFolder() }, 'command');
    const log = { info: () => {} };
    const service = await provideDatabase(config, { log });
    const command = await provideDatabase(config, { share: true, log });
    for (const name of ['appUrl', 'migrationUrl', 'monitorUrl', 'adminUrl'] as const)
      assert.equal(command[name], service[name]);
    await command.stop();
    for (const [url, role] of [
      [service.appUrl, 'jeex_app'],
      [service.migrationUrl, 'jeex_owner'],
      [service.monitorUrl, 'jeex_monitor'],
      [service.adminUrl, 'postgres'],
    ] as const) {
      assert.deepEqual(await query(url ?? '', 'select current_user::text, current_database()::text'), [
        { current_user: role, current_database: 'jeex' },
      ]);
    }
    const elsewhere = service.appUrl.replace(/\/jeex$/, '/postgres');
    await assert.rejects(query(elsewhere, 'select 1'), { code: '42501' }, 'other databases are closed to the roles');
    await service.stop();
    const alone = await provideDatabase(config, { share: true, log });
    assert.equal((await query(alone.appUrl, 'select 1')).length, 1);
    await alone.stop();
    await nothingRuns(config.dataDir);
  });

  test('ends with a service that is killed, and the next one starts at once', async () => {
    const folder = newFolder();
    const { child, adminUrl } = await startService(folder);
    await query(adminUrl, 'create table kept as select 42 as answer');
    await kill(child);
    const next = await start(folder);
    assert.deepEqual(await query(next.adminUrl, 'select * from kept'), [{ answer: 42 }]);
    await next.stop();
    await nothingRuns(folder);
  });

  test('is stopped by the next service when even its watcher was killed', async () => {
    const folder = newFolder();
    const { child } = await startService(folder);
    for (const { pid, command } of processesOf(folder)) if (command.startsWith('/bin/sh')) process.kill(pid, 'SIGKILL');
    await kill(child);
    const left = processesOf(folder).find(({ command }) => command.includes('-D'));
    assert(left, 'the server is still there');
    const next = await start(folder);
    assert(notes.some((note) => note.includes(`process ${left.pid}) that an earlier service left`)));
    await next.stop();
    await nothingRuns(folder);
  });

  test('leaves nothing of an ephemeral run, whether it is stopped or killed', async () => {
    const stopped = await start('', { ephemeral: true });
    const folder = stopped.note.split(';')[0] as string;
    assert(existsSync(folder));
    await stopped.stop();
    assert(!existsSync(folder));
    const killed = await startService('', 'ephemeral');
    assert(existsSync(killed.folder));
    await kill(killed.child);
    await until(() => !existsSync(killed.folder), 'the folder is gone');
    await nothingRuns(killed.folder);
  });

  test('shows the end of its log when it does not start, and leaves nothing running', async () => {
    const folder = newFolder();
    await (await start(folder)).stop();
    appendFileSync(join(folder, 'postgres', 'postgresql.conf'), '\nno_such_setting = 1\n');
    await assert.rejects(start(folder), /did not start \(code 1\):\n(.*\n)*.*no_such_setting/);
    await nothingRuns(folder);
    writeFileSync(join(folder, 'postgres', 'PG_VERSION'), '17\n');
    await assert.rejects(start(folder), /is of PostgreSQL 17, and this service brings PostgreSQL 18/);
    rmSync(join(folder, 'secrets.json'));
    await assert.rejects(start(folder), /secrets.json is missing/);
    assert(!existsSync(join(folder, 'service.lock')));
  });

  test('gives up when it is told to, before and while it starts, and starts well afterwards', async () => {
    const folder = newFolder();
    const reason = new Error('told to');
    await assert.rejects(start(folder, { signal: AbortSignal.abort(reason) }), reason);
    const moments = ['new-cluster', 'postgres.log', join('postgres', 'postmaster.pid')];
    for (const moment of moments) {
      const controller = new AbortController();
      const starting = start(folder, { signal: controller.signal });
      // A start that was quicker than the signal is as good.
      const outcome = starting.then(
        (server) => server.stop(),
        (error) => assert.equal(error, reason),
      );
      await until(() => existsSync(join(folder, moment)), moment);
      controller.abort(reason);
      await outcome;
      await nothingRuns(folder);
    }
    await (await start(folder)).stop();
  });

  test('says so when it ends by itself', async () => {
    const folder = newFolder();
    const server = await start(folder);
    const postmaster = Number(readFileSync(join(folder, 'postgres', 'postmaster.pid'), 'utf8').split('\n')[0]);
    process.kill(postmaster, 'SIGQUIT');
    assert.match((await server.died).message, /ended by itself/);
    await server.stop();
    await nothingRuns(folder);
  });

  test('moves where its account can reach it', { skip: isRoot ? false : 'only root has two accounts' }, async () => {
    const folder = newFolder(0o700);
    const first = await start(folder);
    const place = /so the data is in (\/var\/lib\/jeex-persistence\/data-[0-9a-f]{12})/.exec(first.note)?.[1];
    assert(place);
    after(() => rmSync(place, { recursive: true, force: true }));
    await query(first.adminUrl, 'create table kept as select 42 as answer');
    await first.stop();
    const second = await start(folder);
    assert.deepEqual(await query(second.adminUrl, 'select * from kept'), [{ answer: 42 }]);
    await second.stop();
    await nothingRuns(place);
  });
});
