import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Client } from 'pg';
import { MigrationRefused, type Problem } from '../src/migrator/errors.ts';
import { down, migrate, status, up } from '../src/migrator/migrate.ts';
import { ask, directoryOf, expectSteps, PAIR, tables, versionsOf } from './support/migrations.ts';
import { createTestDatabase, useTestDatabase } from './support/postgres.ts';

const problemCodes = async (url: string, files: Record<string, string>): Promise<Problem['code'][]> => {
  const { problems } = await status(url, { directory: directoryOf(files) });
  return problems.map(({ code }) => code);
};

suite('the migrator', async () => {
  test('applies what is missing in order, and nothing the second time', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(PAIR);
    await expectSteps(migrate(ownerUrl, { mode: 'auto', directory }), 2, [1, 2]);
    await expectSteps(migrate(ownerUrl, { mode: 'auto', directory }), 2, []);
    assert.deepEqual(await tables(ownerUrl), ['a', 'b', 'schemaprogress', 'schemaversion']);
  });

  test('runs each migration once when eight start at the same time on an empty database', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(PAIR);
    const done = await Promise.all(Array.from({ length: 8 }, () => migrate(ownerUrl, { mode: 'auto', directory })));
    assert.deepEqual(done.flatMap(versionsOf).sort(), [1, 2]);
    assert(done.every((one) => one.version === 2));
    assert.deepEqual(await ask(ownerUrl, 'select count(*)::int as n from jeex.a'), [{ n: 1 }]);
  });

  test('says who holds the lock while it waits for it', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const holder = new Client({ connectionString: ownerUrl, application_name: 'the holder' });
    await holder.connect();
    await holder.query('select pg_advisory_lock($1, 2)', [0x6a656578]);
    const notes: string[] = [];
    const { promise: waiting, resolve } = Promise.withResolvers<void>();
    const log = { info: (note: string) => resolve(void notes.push(note)) };
    const running = migrate(ownerUrl, { mode: 'auto', directory: directoryOf(PAIR), log });
    await Promise.race([waiting, running]);
    await holder.end();
    assert.deepEqual(versionsOf(await running), [1, 2]);
    assert.match(notes[0] ?? '', /waiting for the lock "migrate": held by the session \d+ \(the holder\)/);
  });

  test('rolls a failing migration back whole, keeps the ones before it, and names the line', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'create table b (id int);\n\nselect nothing;\n' });
    const failing = migrate(ownerUrl, { mode: 'auto', directory });
    await assert.rejects(failing, /migration 002 b failed and was rolled back: .*SQLSTATE 42703, line 3/);
    assert.deepEqual(await tables(ownerUrl), ['a', 'schemaprogress', 'schemaversion']);
    assert.equal((await status(ownerUrl, { directory })).version, 1);
  });

  test('refuses a script that ends the transaction it runs in', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'select 1; commit; begin; select 2;' });
    await assert.rejects(migrate(ownerUrl, { mode: 'auto', directory }), /must leave the transaction alone/);
    assert.equal((await status(ownerUrl, { directory })).version, 1);
  });

  const { '002.undo.b.sql': _, ...withoutUndo } = PAIR;
  const { '001.do.a.sql': _do, '001.undo.a.sql': _undo, ...withoutFirst } = PAIR;
  const faults: [string, Record<string, string>, Problem['code'][], RegExp][] = [
    ['no migrations', {}, ['EMPTY'], /there are no migrations/],
    [
      'a gap',
      { ...PAIR, '004.do.d.sql': '', '004.undo.d.sql': '' },
      ['GAP'],
      /004 d does not follow .*numbers have no gap/s,
    ],
    ['no first', withoutFirst, ['GAP'], /002 b does not follow/],
    ['no undo', withoutUndo, ['NO_UNDO'], /002 b has no undo.*write 002\.undo\.b\.sql/s],
    ['an undo alone', { ...PAIR, '003.undo.c.sql': '' }, ['NO_DO'], /003\.undo\.c\.sql undoes migration 003/],
    ['a strange name', { ...PAIR, '003.do.Bad Name.sql': '' }, ['NAME'], /is not named NNN/],
    [
      'two of a number',
      { ...PAIR, '002.do.other.sql': '' },
      ['DOUBLED'],
      /002\.do\.other\.sql has the number of 002\.do\.b/,
    ],
    [
      'a misspelt directive',
      { ...PAIR, '002.do.b.sql': '-- destructiv: b\ndrop table a;' },
      ['DIRECTIVE'],
      /destructiv:/,
    ],
    [
      'a directive that is written otherwise',
      { ...PAIR, '002.undo.b.sql': '-- Destructive: b\ndrop table b;' },
      ['DIRECTIVE'],
      /002\.undo\.b\.sql: `-- Destructive: b` is written `-- destructive: …`/,
    ],
    [
      'a migration that no release could serve',
      { ...PAIR, '002.do.b.sql': '-- oldest-release: 003\nselect 1;' },
      ['DIRECTIVE'],
      /`oldest-release: 003` is beyond this migration: 002 is the most/,
    ],
    [
      'an undo of another name',
      { ...withoutUndo, '002.undo.other.sql': '' },
      ['NO_UNDO'],
      /002 b has no undo: 002\.undo\.other\.sql is that of another.*bring 002\.undo\.b\.sql/s,
    ],
  ];
  for (const [what, files, codes, message] of faults) {
    test(`changes nothing when the files have ${what}`, async () => {
      const { ownerUrl } = await useTestDatabase({ empty: true });
      const refused = migrate(ownerUrl, { mode: 'auto', directory: directoryOf(files) });
      await assert.rejects(refused, (error) => error instanceof MigrationRefused && message.test(error.message));
      assert.deepEqual(await problemCodes(ownerUrl, files), codes);
      assert.deepEqual(await tables(ownerUrl), []);
    });
  }

  const three = { ...PAIR, '003.do.c.sql': 'create table c (id int);', '003.undo.c.sql': 'drop table c;' };
  const { '003.do.c.sql': _third, '003.undo.c.sql': _thirdUndo, ...two } = three;
  const renamed = { ...two, '003.do.other.sql': 'select 1;', '003.undo.other.sql': '' };
  const { '002.do.b.sql': _second, '002.undo.b.sql': _secondUndo, ...withoutSecond } = three;
  const serving2 = { ...three, '003.do.c.sql': '-- oldest-release: 003\ncreate table c (id int);' };
  const drifts: [string, Record<string, string>, Record<string, string>, string, Problem['code'][], RegExp][] = [
    [
      'a changed file',
      three,
      { ...three, '001.do.a.sql': 'select 1;' },
      '',
      ['CHECKSUM'],
      /001 a was changed .*new migration/s,
    ],
    ['another migration of a number', three, renamed, '', ['OTHER'], /003 was applied as c, and is other here/],
    ['a file that is gone', three, withoutSecond, '', ['GAP', 'GONE'], /002 b was applied, and its file is missing/],
    [
      'a number that came late',
      three,
      three,
      'delete from jeex.schemaversion where version = 2',
      ['LATE'],
      /002 b arrived after 003/,
    ],
    [
      'a schema that this release cannot serve',
      serving2,
      two,
      '',
      ['AHEAD'],
      /at version 3, and the oldest .* knows migration 003; .*start release/s,
    ],
  ];
  for (const [what, applied, files, tampering, codes, message] of drifts) {
    test(`refuses ${what} in every mode that looks`, async () => {
      const { ownerUrl } = await useTestDatabase({ empty: true });
      await migrate(ownerUrl, { mode: 'auto', directory: directoryOf(applied) });
      if (tampering !== '') await ask(ownerUrl, tampering);
      const directory = directoryOf(files);
      await assert.rejects(migrate(ownerUrl, { mode: 'auto', directory }), message);
      await assert.rejects(migrate(ownerUrl, { mode: 'check', directory }), message);
      await assert.rejects(down(ownerUrl, 0, { directory }), message);
      assert.deepEqual(await problemCodes(ownerUrl, files), codes);
      await expectSteps(migrate(ownerUrl, { mode: 'off', directory }), null, []);
    });
  }

  test('lets a release serve what a later one has migrated, as long as that one says so', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    await migrate(ownerUrl, {
      mode: 'auto',
      directory: directoryOf({ ...three, '002.do.b.sql': '-- oldest-release: 002\nselect 1;' }),
    });
    const directory = directoryOf({ ...two, '002.do.b.sql': '-- oldest-release: 002\nselect 1;' });
    await expectSteps(migrate(ownerUrl, { mode: 'check', directory }), 3, []);
    await expectSteps(migrate(ownerUrl, { mode: 'auto', directory }), 3, []);
    await expectSteps(up(ownerUrl, { directory }), 3, []);
    assert.equal((await status(ownerUrl, { directory })).ahead, true);
    await assert.rejects(down(ownerUrl, 1, { directory }), /knows the way back only from 2.*run it with release \d/s);
  });

  test('lets go back from a version that says nobody can serve it', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(three);
    await up(ownerUrl, { directory });
    await ask(ownerUrl, 'update jeex.schemaversion set oldest_release = 999 where version = 3');
    await assert.rejects(
      migrate(ownerUrl, { mode: 'check', directory }),
      /knows migration 999; .*a release that has migration 999, or run `jeex-persistence migrate down --to 2`/s,
    );
    await assert.rejects(up(ownerUrl, { directory }), /knows migration 999/);
    await expectSteps(down(ownerUrl, 2, { directory }), 2, [3]);
    await expectSteps(up(ownerUrl, { directory }), 3, [3]);
  });

  test('goes up to a version and no further, and refuses one that is not above', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(three);
    await expectSteps(up(ownerUrl, { directory, to: 2 }), 2, [1, 2]);
    await assert.rejects(up(ownerUrl, { directory, to: 1 }), /is at version 2, which is above 1.*migrate down --to 1/s);
    await assert.rejects(up(ownerUrl, { directory, to: 4 }), /there is no migration 4: the newest is 3/);
    await expectSteps(up(ownerUrl, { directory, to: 3 }), 3, [3]);
  });

  test('takes a file for the same with the line ends of another system', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    await migrate(ownerUrl, { mode: 'auto', directory: directoryOf(PAIR) });
    const windows = Object.entries(PAIR).map(([name, text]) => [name, text.replaceAll('\n', '\r\n')]);
    const directory = directoryOf(Object.fromEntries(windows));
    await expectSteps(migrate(ownerUrl, { mode: 'auto', directory }), 2, []);
  });

  test('only looks in mode check, also as the app', async () => {
    const { ownerUrl, appUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(three);
    await migrate(ownerUrl, { mode: 'auto', directory: directoryOf(PAIR) });
    await ask(ownerUrl, 'grant usage on schema jeex to jeex_app');
    await assert.rejects(migrate(appUrl, { mode: 'check', directory }), /needs 3 \(missing: 003 c\)/);
    await migrate(ownerUrl, { mode: 'auto', directory });
    await expectSteps(migrate(appUrl, { mode: 'check', directory }), 3, []);
  });

  test('goes down to a version, newest first, and up again', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(three);
    await migrate(ownerUrl, { mode: 'auto', directory });
    await expectSteps(down(ownerUrl, 1, { directory }), 1, [3, 2]);
    assert.deepEqual(await tables(ownerUrl), ['a', 'schemaprogress', 'schemaversion']);
    await assert.rejects(down(ownerUrl, 2, { directory }), /is at version 1, which is below 2/);
    await expectSteps(down(ownerUrl, 1, { directory }), 1, []);
    await expectSteps(migrate(ownerUrl, { mode: 'auto', directory }), 3, [2, 3]);
  });
});

suite('who migrates', () => {
  test('is the owner of the schema and nobody else', async () => {
    const database = await useTestDatabase({ empty: true });
    const directory = directoryOf(PAIR);
    const refused = /schema jeex belongs to jeex_owner, .*name the role jeex_owner in MIGRATION_DATABASE_URL/s;
    for (const url of [database.adminUrl, database.urlAs('app')]) {
      await assert.rejects(
        up(url, { directory }),
        (error) => error instanceof MigrationRefused && refused.test(`${error}`),
      );
      await assert.rejects(down(url, 0, { directory }), refused);
    }
    assert.deepEqual(await tables(database.ownerUrl), []);
    await expectSteps(up(database.ownerUrl, { directory }), 2, [1, 2]);
  });

  test('is jeex_owner where the schema is still to be made', async () => {
    const database = await useTestDatabase({ empty: true });
    const directory = directoryOf(PAIR);
    await ask(database.ownerUrl, 'drop schema jeex');
    await assert.rejects(
      up(database.adminUrl, { directory }),
      /there is no schema jeex, .*`jeex-persistence bootstrap` first/s,
    );
    assert.deepEqual(await ask(database.adminUrl, "select from pg_namespace where nspname = 'jeex'"), []);
    await expectSteps(up(database.ownerUrl, { directory }), 2, [1, 2]);
  });
});

suite("the service's own migrations", () => {
  test('leave nothing when undone, and come back', async () => {
    const database = await createTestDatabase();
    try {
      const { latest, pending } = await status(database.ownerUrl);
      assert.equal(pending.length, 0);
      const before = await objects(database.adminUrl);
      await down(database.ownerUrl, 0);
      const rest = await objects(database.adminUrl);
      assert.deepEqual(
        rest.filter((name) => !/schema(version|progress)/.test(name)),
        [],
      );
      assert.equal((await migrate(database.ownerUrl, { mode: 'auto' })).version, latest);
      assert.deepEqual(await objects(database.adminUrl), before);
    } finally {
      await database.drop();
    }
  });
});

/** Every table, index, function, type, policy and trigger of the schema, but for those of extensions. */
async function objects(url: string): Promise<string[]> {
  const rows = await ask<{ name: string }>(
    url,
    `select pg_describe_object(classid, objid, 0) as name from (
       select 'pg_class'::regclass::oid as classid, oid as objid from pg_class where relnamespace = 'jeex'::regnamespace
       union all
       select 'pg_proc'::regclass, oid from pg_proc where pronamespace = 'jeex'::regnamespace
       union all
       select 'pg_type'::regclass, oid from pg_type where typnamespace = 'jeex'::regnamespace
       union all
       select 'pg_policy'::regclass, oid from pg_policy
       union all
       select 'pg_trigger'::regclass, oid from pg_trigger where not tgisinternal
     ) as o
     where not exists (select from pg_depend d where d.classid = o.classid and d.objid = o.objid and d.deptype = 'e')
     order by 1`,
  );
  return rows.map((row) => row.name);
}
