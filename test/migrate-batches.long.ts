import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { down, up } from '../src/migrator/migrate.ts';
import { ask, directoryOf, failed, progress, versionsOf } from './support/migrations.ts';
import { useTestDatabase } from './support/postgres.ts';

suite('a migration in batches', () => {
  const once = {
    '001.do.a.sql': `create table a (k uuid, n bytea, v int, done int not null default 0, primary key (k, n));
insert into a select md5(i::text)::uuid, sha256(i::text::bytea), i from generate_series(1, 2500) as i;`,
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
