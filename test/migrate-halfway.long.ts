import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { MigrationFailed } from '../src/migrator/errors.ts';
import { down, migrate, reachedBefore, status, up } from '../src/migrator/migrate.ts';
import { ask, directoryOf, expectSteps, PAIR, versionsOf } from './support/migrations.ts';
import { useTestDatabase } from './support/postgres.ts';

suite('an error on the way', () => {
  test('tells how far the database has come', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'select nothing;' });
    for (const steps of [[1], []]) {
      const error = await up(ownerUrl, { directory }).catch((thrown) => thrown);
      assert(error instanceof MigrationFailed);
      const reached = reachedBefore(error);
      assert.equal(reached?.version, 1);
      assert.deepEqual(reached && versionsOf(reached), steps);
    }
  });

  test('tells it of the way down, too', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '001.undo.a.sql': 'select nothing;' });
    await up(ownerUrl, { directory });
    const reached = reachedBefore(await down(ownerUrl, 0, { directory }).catch((error) => error));
    assert.equal(reached?.version, 1);
    assert.deepEqual(reached && versionsOf(reached), [2]);
  });

  test('is the reason of who interrupts it, and tells as much', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const controller = new AbortController();
    const reason = new Error('enough');
    const { signal } = controller;
    const directory = directoryOf(PAIR);
    const running = up(ownerUrl, { directory, signal, onStep: () => controller.abort(reason) });
    assert.equal(await running.catch((error) => error), reason);
    assert.equal(reachedBefore(reason)?.version, 1);
  });
});

suite('a step in batches that ended halfway', () => {
  const FILL = {
    '001.do.a.sql':
      'create table a (k int primary key, done int); insert into a select i, 0 from generate_series(1, 2500) as i;',
    '001.undo.a.sql': 'drop table a;',
    '002.do.fill.sql': '-- run: batches\n-- batch: a (k)\nupdate a set done = done + 1 where (k) between ($1) and ($2)',
    '002.undo.fill.sql':
      '-- run: batches\n-- batch: a (k)\nupdate a set done = done - 1 where (k) between ($1) and ($2)',
  };
  const ONE_AWAY = { ...FILL, '003.do.c.sql': 'create table c (id int);', '003.undo.c.sql': 'drop table c;' };

  /** A table of which row 2000 stays as it is while the constraint is there. */
  const stopAt = (url: string, done: number) =>
    ask(url, `alter table jeex.a add constraint stop check (k <> 2000 or done = ${done})`);
  const letGo = (url: string) => ask(url, 'alter table jeex.a drop constraint stop');

  test('as an undo is finished by going down, and nothing else goes on before', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(ONE_AWAY);
    await up(ownerUrl, { directory, to: 2 });
    await stopAt(ownerUrl, 1);
    await assert.rejects(down(ownerUrl, 1, { directory }), /undo of migration 002 fill failed and keeps the batches/);
    const refused = /the undo of 002 was begun and has done \d+ rows\n.*`jeex-persistence migrate down --to 1`/;
    await assert.rejects(up(ownerUrl, { directory }), refused);
    await assert.rejects(migrate(ownerUrl, { mode: 'check', directory }), refused);
    await assert.rejects(migrate(ownerUrl, { mode: 'auto', directory }), refused);
    await assert.rejects(down(ownerUrl, 2, { directory }), refused);
    await letGo(ownerUrl);
    await expectSteps(down(ownerUrl, 1, { directory }), 1, [2]);
    assert.deepEqual(await ask(ownerUrl, 'select distinct done from jeex.a'), [{ done: 0 }]);
    await expectSteps(up(ownerUrl, { directory }), 3, [2, 3]);
  });

  test('is known to who may see it, and up goes on with it', async () => {
    const { ownerUrl, urlAs } = await useTestDatabase({ empty: true });
    const directory = directoryOf(FILL);
    await up(ownerUrl, { directory, to: 1 });
    await ask(ownerUrl, 'grant usage on schema jeex to jeex_app');
    await stopAt(ownerUrl, 0);
    await assert.rejects(up(ownerUrl, { directory }), MigrationFailed);
    const { unfinished, problems } = await status(ownerUrl, { directory });
    const [half] = await ask<{ rows: number }>(ownerUrl, 'select count(*)::int as rows from jeex.a where done = 1');
    assert.deepEqual(unfinished, [{ version: 2, action: 'do', rows: half?.rows, batches: unfinished[0]?.batches }]);
    assert(Number(unfinished[0]?.batches) > 0);
    assert.deepEqual(problems, []);
    assert.deepEqual((await status(urlAs('app'), { directory })).unfinished, []);
    await letGo(ownerUrl);
    await expectSteps(up(ownerUrl, { directory }), 2, [2]);
    assert.deepEqual((await status(ownerUrl, { directory })).unfinished, []);
  });
});
