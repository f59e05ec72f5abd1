import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';
import { up } from '../src/migrator/migrate.ts';
import { ask, directoryOf, PAIR, tables } from './support/migrations.ts';
import { useTestDatabase } from './support/postgres.ts';
import { ENCRYPTION_KEY } from './support/service.ts';
import { BASE_ENVIRONMENT } from './support/spawned.ts';
import { until } from './support/until.ts';

const ENTRY = fileURLToPath(new URL('../src/jeex-persistence.js', import.meta.url));
const STOPPED = new Error('interrupted by SIGINT');

/** Whether a migrator's session runs a statement like this. */
const runs = async (url: string, like: string): Promise<boolean> => {
  const found = `select from pg_stat_activity where state = 'active' and datname = current_database()
    and application_name = 'jeex-persistence migrate' and query like $1`;
  return (await ask(url, found, [like])).length > 0;
};

suite('a migrator that is told to stop', () => {
  test('does not begin when it was told so before', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    await assert.rejects(up(ownerUrl, { directory: directoryOf(PAIR), signal: AbortSignal.abort(STOPPED) }), STOPPED);
    assert.deepEqual(await tables(ownerUrl), []);
  });

  test('while it waits for another one does nothing, then or later', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const holder = new Client({ connectionString: ownerUrl });
    await holder.connect();
    try {
      await holder.query('select pg_advisory_lock($1, 2)', [0x6a656578]);
      const stop = new AbortController();
      const log = { info: () => stop.abort(STOPPED) };
      await assert.rejects(up(ownerUrl, { directory: directoryOf(PAIR), signal: stop.signal, log }), STOPPED);
    } finally {
      await holder.end();
    }
    assert.deepEqual(await tables(ownerUrl), []);
  });

  test('in the middle of a statement cancels it, says what came of it, and keeps the ones before', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'create table b (id int); select pg_sleep(600);' });
    const stop = new AbortController();
    const notes: string[] = [];
    const running = up(ownerUrl, { directory, signal: stop.signal, log: { info: (note) => notes.push(note) } });
    const rejected = assert.rejects(running, STOPPED);
    await until(() => runs(ownerUrl, '%pg_sleep(600)%'), 'it is in its second migration');
    stop.abort(STOPPED);
    await rejected;
    assert.match(notes.join(), /migration 002 b was rolled back/);
    assert.deepEqual(await tables(ownerUrl), ['a', 'schemaprogress', 'schemaversion']);
  });

  test('while it waits for a table stops waiting', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'alter table a add column x int;' });
    await up(ownerUrl, { directory, to: 1 });
    const user = new Client({ connectionString: ownerUrl });
    await user.connect();
    try {
      await user.query('begin; select from jeex.a');
      const stop = new AbortController();
      const log = { info: () => stop.abort(STOPPED) };
      await assert.rejects(up(ownerUrl, { directory, signal: stop.signal, log }), STOPPED);
    } finally {
      await user.end();
    }
    assert.deepEqual(await ask(ownerUrl, 'select max(version)::int as version from jeex.schemaversion'), [
      { version: 1 },
    ]);
  });

  test('in the middle of batches keeps those it has done', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({
      '001.do.a.sql':
        'create table a (k int primary key, done int default 0); insert into a select generate_series(1, 3000);',
      '001.undo.a.sql': 'drop table a;',
      '002.do.fill.sql':
        '-- run: batches\n-- batch: a (k)\nupdate a set done = done + 1 where k between $1 and $2 and pg_sleep(0.0005) is not null',
      '002.undo.fill.sql': '',
    });
    await up(ownerUrl, { directory, to: 1 });
    const stop = new AbortController();
    const rejected = assert.rejects(up(ownerUrl, { directory, signal: stop.signal }), STOPPED);
    await until(async () => (await ask(ownerUrl, 'select from jeex.schemaprogress')).length > 0, 'a batch is done');
    stop.abort(STOPPED);
    await rejected;
    const [half] = await ask<{ done: number }>(ownerUrl, 'select sum(done)::int as done from jeex.a');
    assert(half && half.done > 0 && half.done < 3000, `${half?.done} rows were done`);
    await up(ownerUrl, { directory });
    assert.deepEqual(await ask(ownerUrl, 'select distinct done from jeex.a'), [{ done: 1 }]);
  });

  const commands: [string, string[], number, RegExp][] = [
    ['the command', ['migrate', 'up'], 1, /interrupted by SIGTERM/],
    ['a service that migrates at its start', ['serve'], 0, /waiting/],
  ];
  for (const [what, args, code, message] of commands) {
    test(`by SIGTERM as ${what} ends at once, and migrates neither then nor later`, async () => {
      const { ownerUrl, appUrl } = await useTestDatabase({ empty: true });
      const holder = new Client({ connectionString: ownerUrl });
      await holder.connect();
      try {
        await holder.query('select pg_advisory_lock($1, 2)', [0x6a656578]);
        const child = spawn(process.execPath, [ENTRY, ...args], {
          env: {
            ...BASE_ENVIRONMENT,
            GRPC_LISTEN: '127.0.0.1:0',
            HTTP_LISTEN: '127.0.0.1:0',
            DATABASE_URL: appUrl,
            MIGRATION_DATABASE_URL: ownerUrl,
            MIGRATE: 'auto',
            ENCRYPTION_KEYS: ENCRYPTION_KEY,
          },
          stdio: ['ignore', 'ignore', 'pipe'],
        });
        const exited = once(child, 'exit');
        let told = '';
        child.stderr.on('data', (chunk) => {
          told += chunk;
        });
        await until(() => /waiting for the lock/.test(told) || child.exitCode !== null, 'it waits for the lock');
        child.kill('SIGTERM');
        assert.deepEqual(await exited, [code, null], told);
        assert.match(told, message);
      } finally {
        await holder.end();
      }
      assert.deepEqual(await tables(ownerUrl), []);
    });
  }
});
