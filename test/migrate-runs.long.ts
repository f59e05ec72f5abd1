import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Client } from 'pg';
import { readMigrations } from '../src/migrator/files.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { ask, directoryOf, failed, PAIR, progress, tables, versionsOf } from './support/migrations.ts';
import { useTestDatabase } from './support/postgres.ts';

const INDEX = {
  ...PAIR,
  '002.do.b.sql': '-- run: concurrently\ncreate unique index concurrently a_id on a (id);',
  '002.undo.b.sql': '-- run: concurrently\ndrop index concurrently a_id;',
};

const indexOf = async (url: string) =>
  (
    await ask<{ oid: number; valid: boolean }>(
      url,
      `select indexrelid::int as oid, indisvalid as valid from pg_index where indexrelid = to_regclass('jeex.a_id')`,
    )
  )[0];

/** What a run leaves that was killed while it did the second migration. */
const claim = (url: string, directory: string) =>
  ask(
    url,
    `insert into jeex.schemaprogress values (2, 'do', jsonb_build_object('checksum', $1::text, 'done', '{}'::jsonb), now())`,
    [readMigrations(directory).migrations[1]?.checksum],
  );

suite('a concurrent index', () => {
  test('is built and dropped', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(INDEX);
    await up(ownerUrl, { directory });
    assert.equal((await indexOf(ownerUrl))?.valid, true);
    await down(ownerUrl, 1, { directory });
    assert.equal(await indexOf(ownerUrl), undefined);
    assert.deepEqual(await progress(ownerUrl), []);
  });

  test('that cannot be built leaves nothing, and is built when the rows allow it', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(INDEX);
    await up(ownerUrl, { directory, to: 1 });
    await ask(ownerUrl, 'insert into jeex.a values (1)');
    await assert.rejects(up(ownerUrl, { directory }), failed(/002 b failed and left nothing: .*SQLSTATE 23505/));
    assert.equal(await indexOf(ownerUrl), undefined);
    assert.deepEqual(await progress(ownerUrl), []);
    await ask(ownerUrl, 'delete from jeex.a');
    assert.deepEqual(versionsOf(await up(ownerUrl, { directory })), [2]);
  });

  test('that was finished before a crash is written down and not built again', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(INDEX);
    await up(ownerUrl, { directory, to: 1 });
    await ask(ownerUrl, 'create unique index a_id on jeex.a (id)');
    const before = await indexOf(ownerUrl);
    await claim(ownerUrl, directory);
    assert.deepEqual(versionsOf(await up(ownerUrl, { directory })), [2]);
    assert.deepEqual(await indexOf(ownerUrl), before);
  });

  test('has the name that PostgreSQL gives it, in small letters unless it is quoted', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({
      ...INDEX,
      '002.do.b.sql': '-- run: concurrently\nCREATE INDEX CONCURRENTLY A_Id ON a (id);',
    });
    await up(ownerUrl, { directory, to: 1 });
    await ask(ownerUrl, 'create index a_id on jeex.a (id)');
    await claim(ownerUrl, directory);
    assert.deepEqual(versionsOf(await up(ownerUrl, { directory })), [2]);
  });

  test("of somebody else's making is not touched", async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(INDEX);
    await up(ownerUrl, { directory, to: 1 });
    await ask(ownerUrl, 'create index a_id on jeex.a (id)');
    const before = await indexOf(ownerUrl);
    await assert.rejects(up(ownerUrl, { directory }), failed(/already exists/));
    assert.deepEqual(await indexOf(ownerUrl), before);
  });

  const wrong: [string, string, RegExp][] = [
    ['two statements', 'create index concurrently a_id on a (id); select 1;', /cannot insert multiple commands/],
    ['another statement', 'create table c (id int);', /takes one `create index concurrently name/],
    ['no name', 'create index concurrently on a (id);', /takes one `create index concurrently name/],
    [
      'a condition',
      'create index concurrently if not exists a_id on a (id);',
      /takes one `create index concurrently name/,
    ],
  ];
  for (const [what, sql, message] of wrong) {
    test(`is refused with ${what}`, async () => {
      const { ownerUrl } = await useTestDatabase({ empty: true });
      const directory = directoryOf({ ...INDEX, '002.do.b.sql': `-- run: concurrently\n${sql}` });
      await assert.rejects(up(ownerUrl, { directory }), failed(message));
      assert.equal(await indexOf(ownerUrl), undefined);
      assert.deepEqual(await progress(ownerUrl), []);
    });
  }
});

/** Somebody holds a table that a migration wants. @param holds a statement @param told what the migrator says of it */
async function expectToGiveWay(
  { ownerUrl, directory }: { ownerUrl: string; directory: string },
  { holder, holds, told }: { holder: string; holds: string; told: RegExp },
  meanwhile: () => Promise<void>,
): Promise<void> {
  const user = new Client({ connectionString: ownerUrl, application_name: holder });
  await user.connect();
  try {
    await user.query(`begin; ${holds}`);
    const { promise: named, resolve } = Promise.withResolvers<string>();
    const log = { info: (note: string) => /by the session/.test(note) && resolve(note) };
    const running = up(ownerUrl, { directory, log });
    assert.match(await named, told);
    await meanwhile();
    await user.query('commit');
    assert.deepEqual(versionsOf(await running), [2]);
  } finally {
    await user.end();
  }
}

suite('a migration whose table is in use', () => {
  test('gives way, says who holds it, and is applied when it is free', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({
      ...PAIR,
      '002.do.b.sql': 'create table b (id int); alter table a add column x int;',
    });
    await up(ownerUrl, { directory, to: 1 });
    const told = /002 b: a table .* is in use, by the session \d+ \(a long report\) \(.*lock timeout\): rolled back/;
    const report = { holder: 'a long report', holds: 'select from jeex.a', told };
    await expectToGiveWay({ ownerUrl, directory }, report, async () => {
      assert(!(await tables(ownerUrl)).includes('b'));
      await ask(ownerUrl, 'select from jeex.a');
    });
  });
});

suite("the migrator's own table", () => {
  test('is brought up to date without holding up who looks at it while a dump runs', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(PAIR);
    await up(ownerUrl, { directory, to: 1 });
    await ask(ownerUrl, 'alter table jeex.schemaversion drop column release');
    const holds = 'lock table jeex.schemaversion in access share mode';
    const dump = { holder: 'a dump', holds, told: /by the session \d+ \(a dump\)/ };
    await expectToGiveWay({ ownerUrl, directory }, dump, async () => {
      await ask(ownerUrl, 'select from jeex.schemaversion');
    });
  });
});

suite('a script', () => {
  test('starts with the settings of the migrator, whatever the one before it has set', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({
      ...PAIR,
      '001.do.a.sql': "create table a (id int); set search_path = pg_catalog; set lock_timeout = '1h';",
    });
    await up(ownerUrl, { directory });
    assert.deepEqual(await tables(ownerUrl), ['a', 'b', 'schemaprogress', 'schemaversion']);
  });

  test('that lets go of the lock is the last one', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({
      ...PAIR,
      '001.do.a.sql': 'create table a (id int); select pg_advisory_unlock_all();',
    });
    await assert.rejects(up(ownerUrl, { directory }), failed(/002 b failed .*has let go of the migrator's lock/));
  });

  test('that ends its transaction is not said to be undone', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'create table b (id int); commit; begin; select 2;' });
    await assert.rejects(
      up(ownerUrl, { directory }),
      failed(/002 b failed and was not rolled back: .*leave the transaction alone/),
    );
  });

  test('whose connection is cut is not said to be undone for certain', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'select pg_terminate_backend(pg_backend_pid());' });
    await assert.rejects(
      up(ownerUrl, { directory }),
      failed(/002 b failed and was rolled back, unless it had just been committed/),
    );
  });

  test('that fails of a value does not quote it', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': "select 'my diary'::text::int from a;" });
    await assert.rejects(
      up(ownerUrl, { directory }),
      (error: Error) => /22P02/.test(error.message) && !/diary/.test(error.message),
    );
  });
});
