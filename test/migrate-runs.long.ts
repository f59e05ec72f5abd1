import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Client } from 'pg';
import { MigrationFailed } from '../src/migrator/errors.ts';
import { readMigrations } from '../src/migrator/files.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { ask, directoryOf, PAIR, tables, versionsOf } from './support/migrations.ts';
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

const progress = (url: string) => ask(url, 'select * from jeex.schemaprogress');

const failed = (message: RegExp) => (error: unknown) => error instanceof MigrationFailed && message.test(error.message);

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

suite('a migration in batches', () => {
  const once = {
    '001.do.a.sql': `create table a (k uuid, n bytea, v int, done int not null default 0, primary key (k, n));
insert into a select gen_random_uuid(), sha256(i::text::bytea), i from generate_series(1, 2500) as i;`,
    '001.undo.a.sql': 'drop table a;',
    '002.do.fill.sql':
      '-- run: batches\n-- batch: a (k, n)\nupdate a set done = done + 1 where (k, n) between ($1, $2) and ($3, $4)',
    '002.undo.fill.sql': '-- Nothing to undo.',
  };

  test('does each row once, in more than one batch', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const notes: string[] = [];
    await up(ownerUrl, { directory: directoryOf(once), log: { info: (note) => notes.push(note) } });
    assert.deepEqual(await ask(ownerUrl, 'select done, count(*)::int as n from jeex.a group by done'), [
      { done: 1, n: 2500 },
    ]);
    const [, batches] = /002 fill: 2500 rows in (\d+) batches/.exec(notes.join('\n')) ?? [];
    assert(Number(batches) > 1, notes.join('\n'));
    assert.deepEqual(await progress(ownerUrl), []);
  });

  test('keeps what it has done when a row fails, and goes on behind it', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(once);
    await up(ownerUrl, { directory, to: 1 });
    const [bad] = await ask<{ k: string }>(ownerUrl, 'select k::text from jeex.a order by k, n offset 1500 limit 1');
    await ask(ownerUrl, `alter table jeex.a add constraint a_done check (k <> '${bad?.k}' or done = 0)`);
    await assert.rejects(
      up(ownerUrl, { directory }),
      failed(/002 fill failed and keeps the batches it has done.*SQLSTATE 23514/),
    );
    const [half] = await ask<{ done: number }>(ownerUrl, 'select sum(done)::int as done from jeex.a');
    assert(half && half.done > 0 && half.done <= 1500, `${half?.done} rows were done`);
    await ask(ownerUrl, 'alter table jeex.a drop constraint a_done');
    const notes: string[] = [];
    await up(ownerUrl, { directory, log: { info: (note) => notes.push(note) } });
    assert.match(notes.join(), new RegExp(`002 fill: goes on after ${half.done} rows`));
    assert.deepEqual(await ask(ownerUrl, 'select distinct done from jeex.a'), [{ done: 1 }]);
  });

  test('begins anew when its file was changed after it had failed', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const failing = {
      ...once,
      '002.do.fill.sql': once['002.do.fill.sql'].replace('done + 1', 'done + 0 / (v - 2500)'),
    };
    await assert.rejects(up(ownerUrl, { directory: directoryOf(failing) }), failed(/002 fill failed .*SQLSTATE 22012/));
    const notes: string[] = [];
    await up(ownerUrl, { directory: directoryOf(once), log: { info: (note) => notes.push(note) } });
    assert.match(notes.join('\n'), /002 fill: the file has changed .*\n.*2500 rows in/s);
    assert.deepEqual(await ask(ownerUrl, 'select distinct done from jeex.a'), [{ done: 1 }]);
  });

  test('begins anew on a table that was made again', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const { '001.do.a.sql': make, '001.undo.a.sql': drop, '002.do.fill.sql': fill } = once;
    const files = {
      '001.do.s.sql': 'create function fails() returns boolean language sql return true;',
      '001.undo.s.sql': 'drop function fails;',
      '002.do.a.sql': make,
      '002.undo.a.sql': drop,
      '003.do.fill.sql': `${fill} and (v <> 2500 or 1 / (not fails())::int > 0)`,
      '003.undo.fill.sql': '',
    };
    const directory = directoryOf(files);
    await assert.rejects(up(ownerUrl, { directory }), failed(/003 fill failed .*SQLSTATE 22012/));
    await down(ownerUrl, 1, { directory, haveBackup: true });
    await ask(ownerUrl, 'create or replace function jeex.fails() returns boolean language sql return false');
    assert.deepEqual(versionsOf(await up(ownerUrl, { directory })), [2, 3]);
    assert.deepEqual(await ask(ownerUrl, 'select distinct done from jeex.a'), [{ done: 1 }]);
  });

  test('that moves rows behind itself ends where the table ended when it began', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const files = {
      ...once,
      '001.do.a.sql':
        'create table a (k int primary key, done int not null default 0); insert into a select generate_series(1, 300);',
      '002.do.fill.sql':
        '-- run: batches\n-- batch: a (k)\nupdate a set k = k + 1000, done = done + 1 where k between $1 and $2',
    };
    await up(ownerUrl, { directory: directoryOf(files) });
    assert.deepEqual(await ask(ownerUrl, 'select max(k) as k, min(done) as least, max(done) as most from jeex.a'), [
      { k: 1300, least: 1, most: 1 },
    ]);
  });

  const unfit: [string, string, RegExp][] = [
    [
      'columns that may be null',
      'create table a (k int, n int); create index on a (k, n);',
      /takes columns that are not null/,
    ],
    [
      'columns that no index begins with',
      'create table a (n int not null, k int not null, primary key (n, k));',
      /an index begins with/,
    ],
  ];
  for (const [what, table, message] of unfit) {
    test(`is refused over ${what}`, async () => {
      const { ownerUrl } = await useTestDatabase({ empty: true });
      const fill = '-- run: batches\n-- batch: a (k, n)\ndelete from a where (k, n) between ($1, $2) and ($3, $4)';
      const directory = directoryOf({ ...once, '001.do.a.sql': table, '002.do.fill.sql': fill });
      await assert.rejects(up(ownerUrl, { directory }), failed(message));
    });
  }

  test('of an empty table is one that has nothing to do', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({
      ...once,
      '001.do.a.sql': 'create table a (k uuid, n bytea, done int, primary key (k, n));',
    });
    assert.deepEqual(versionsOf(await up(ownerUrl, { directory })), [1, 2]);
  });

  test('of a table that is not there says so', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...once, '001.do.a.sql': 'select 1;' });
    await assert.rejects(up(ownerUrl, { directory }), failed(/there is no table a, which `batch:` names/));
  });
});

suite('a migration whose table is in use', () => {
  test('gives way, says who holds it, and is applied when it is free', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({
      ...PAIR,
      '002.do.b.sql': 'create table b (id int); alter table a add column x int;',
    });
    await up(ownerUrl, { directory, to: 1 });
    const user = new Client({ connectionString: ownerUrl, application_name: 'a long report' });
    await user.connect();
    try {
      await user.query('begin; select from jeex.a');
      const { promise: named, resolve } = Promise.withResolvers<string>();
      const log = { info: (note: string) => /by the session/.test(note) && resolve(note) };
      const running = up(ownerUrl, { directory, log });
      assert.match(
        await named,
        /002 b: a table .* is in use, by the session \d+ \(a long report\) \(.*lock timeout\): rolled back/,
      );
      assert(!(await tables(ownerUrl)).includes('b'));
      await ask(ownerUrl, 'select from jeex.a');
      await user.query('commit');
      assert.deepEqual(versionsOf(await running), [2]);
    } finally {
      await user.end();
    }
  });
});

suite("the migrator's own table", () => {
  test('is brought up to date without holding up who looks at it while a dump runs', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    await up(ownerUrl, { directory: directoryOf(PAIR), to: 1 });
    await ask(ownerUrl, 'alter table jeex.schemaversion drop column release');
    const dump = new Client({ connectionString: ownerUrl, application_name: 'a dump' });
    await dump.connect();
    try {
      await dump.query('begin; lock table jeex.schemaversion in access share mode');
      const { promise: named, resolve } = Promise.withResolvers<string>();
      const log = { info: (note: string) => /by the session/.test(note) && resolve(note) };
      const running = up(ownerUrl, { directory: directoryOf(PAIR), log });
      assert.match(await named, /by the session \d+ \(a dump\)/);
      await ask(ownerUrl, 'select from jeex.schemaversion');
      await dump.query('commit');
      assert.deepEqual(versionsOf(await running), [2]);
    } finally {
      await dump.end();
    }
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
