import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';
import { latestVersion } from '../src/migrator/files.ts';
import { up } from '../src/migrator/migrate.ts';
import { ask, directoryOf, PAIR, tables, versionsOf } from './support/migrations.ts';
import { createTestDatabase, useTestDatabase } from './support/postgres.ts';
import { until } from './support/until.ts';

const WORKER = fileURLToPath(new URL('support/migrate-worker.ts', import.meta.url));

/** A migrator in a process of its own, for tests that kill it. */
function startWorker(url: string, directory: string): ChildProcess {
  const worker = spawn(process.execPath, [WORKER, url, directory], { stdio: 'ignore' });
  after(() => worker.kill('SIGKILL'));
  return worker;
}

async function kill(worker: ChildProcess): Promise<void> {
  worker.kill('SIGKILL');
  if (worker.exitCode === null && worker.signalCode === null) await once(worker, 'exit');
}

suite('several migrators', () => {
  for (let round = 1; round <= 20; round += 1) {
    test(`apply each migration once when 20 start at the same time on an empty database, round ${round}`, async () => {
      const database = await createTestDatabase({ empty: true });
      try {
        const done = await Promise.all(Array.from({ length: 20 }, () => up(database.ownerUrl)));
        const expected = Array.from({ length: latestVersion() }, (_, index) => index + 1);
        assert.deepEqual(
          done.flatMap(versionsOf).sort((a, b) => a - b),
          expected,
        );
        const rows = await ask<{ version: number }>(
          database.ownerUrl,
          'select version::int from jeex.schemaversion order by 1',
        );
        assert.deepEqual(
          rows.map(({ version }) => version),
          expected,
        );
      } finally {
        await database.drop();
      }
    });
  }

  test('go on within 5 seconds when the one that holds the lock is killed in the middle', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const slow = { ...PAIR, '002.do.b.sql': 'create table b (id int); select pg_sleep(600);' };
    const worker = startWorker(ownerUrl, directoryOf(slow));
    await until(async () => await runs(ownerUrl, '%pg_sleep(600)%'), 'the first migrator is in its second migration');
    const { promise: waiting, resolve } = Promise.withResolvers<void>();
    const log = { info: () => resolve() };
    const next = up(ownerUrl, { directory: directoryOf(PAIR), log, patienceMs: 5000 });
    await Promise.race([waiting, next]);
    await kill(worker);
    assert.deepEqual(versionsOf(await next), [2]);
    assert.deepEqual(await ask(ownerUrl, 'select count(*)::int as n from jeex.a'), [{ n: 1 }]);
  });
});

suite('a migrator that is killed', () => {
  test('in batches leaves each row done once or not at all, and the next one does the rest', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const files = {
      '001.do.a.sql':
        'create table a (k text, n int, done int not null default 0, primary key (k, n));\n' +
        "insert into a select 'k' || i % 7, i from generate_series(1, 3000) as i;",
      '001.undo.a.sql': 'drop table a;',
      '002.do.fill.sql':
        '-- run: batches\n-- batch: a (k, n)\n' +
        'update a set done = done + 1 where (k, n) between ($1, $2) and ($3, $4) and pg_sleep(0.0005) is not null',
      '002.undo.fill.sql': '-- Nothing to undo.',
    };
    const directory = directoryOf(files);
    const worker = startWorker(ownerUrl, directory);
    await until(async () => (await batchesOf(ownerUrl)) >= 3, 'three batches are done');
    await kill(worker);
    const [half] = await ask<{ done: number }>(ownerUrl, 'select sum(done)::int as done from jeex.a');
    assert(half && half.done > 0 && half.done < 3000, `${half?.done} rows were done when it was killed`);
    assert.deepEqual(versionsOf(await up(ownerUrl, { directory })), [2]);
    assert.deepEqual(await ask(ownerUrl, 'select distinct done from jeex.a'), [{ done: 1 }]);
    assert.deepEqual(await ask(ownerUrl, 'select * from jeex.schemaprogress'), []);
  });

  test('while it builds an index leaves one unfinished, which the next one drops and builds again', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const index = {
      ...PAIR,
      '002.do.b.sql': '-- run: concurrently\ncreate index concurrently a_id on a (id);',
      '002.undo.b.sql': '-- run: concurrently\ndrop index concurrently a_id;',
    };
    const directory = directoryOf(index);
    await up(ownerUrl, { directory, to: 1 });
    const held = await holdSnapshot(ownerUrl);
    const worker = startWorker(ownerUrl, directory);
    await until(async () => (await indexOf(ownerUrl))?.valid === false, 'the index waits for the old snapshot');
    await kill(worker);
    await until(async () => !(await runs(ownerUrl, '%index concurrently%')), 'the server has noticed');
    await held.end();
    assert.deepEqual(await indexOf(ownerUrl), { valid: false });
    const notes: string[] = [];
    const done = await up(ownerUrl, { directory, log: { info: (note) => notes.push(note) } });
    assert.deepEqual(versionsOf(done), [2]);
    assert.match(notes.join(), /002 b: the index a_id was left unfinished: it is dropped and built again/);
    assert.deepEqual(await indexOf(ownerUrl), { valid: true });
  });
});

/** How many batches the migration that runs has done. */
async function batchesOf(url: string): Promise<number> {
  if (!(await tables(url)).includes('schemaprogress')) return 0;
  const [row] = await ask<{ batches: number }>(
    url,
    `select (state -> 'done' ->> 'batches')::int as batches from jeex.schemaprogress`,
  );
  return row?.batches ?? 0;
}

/** The state of the index a_id; undefined without one. */
async function indexOf(url: string): Promise<{ valid: boolean } | undefined> {
  const found = `select indisvalid as valid from pg_index where indexrelid = to_regclass('jeex.a_id')`;
  return (await ask<{ valid: boolean }>(url, found))[0];
}

/** A transaction that an index built concurrently has to wait for at its end. */
async function holdSnapshot(url: string): Promise<Client> {
  const client = new Client({ connectionString: url });
  await client.connect();
  after(() => client.end());
  await client.query('begin isolation level repeatable read; select 1');
  return client;
}

/** Whether another session runs a statement like this. */
async function runs(url: string, like: string): Promise<boolean> {
  const rows = await ask(
    url,
    "select from pg_stat_activity where state = 'active' and datname = current_database() and pid <> pg_backend_pid() and query like $1",
    [like],
  );
  return rows.length > 0;
}
