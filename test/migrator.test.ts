import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { Client } from 'pg';
import { down, migrate, status } from '../src/db/migrator.ts';
import { createTestDatabase, useTestDatabase } from './support/postgres.ts';

const PAIR = {
  '001.do.a.sql': 'create table a (id int);\ninsert into a values (1);\n',
  '001.undo.a.sql': 'drop table a;\n',
  '002.do.b.sql': 'create table b (id int);\n',
  '002.undo.b.sql': 'drop table b;\n',
};

/** A directory with these migrations, whose own name would mean something in a glob pattern. */
function directoryOf(files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'jeex [a]{b,c}*!-'));
  after(() => rmSync(directory, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
}

async function query<T extends object>(url: string, sql: string): Promise<T[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
  } finally {
    await client.end();
  }
}

const tables = async (url: string): Promise<string[]> => {
  const rows = await query<{ t: string }>(
    url,
    `select tablename t from pg_tables where schemaname = 'jeex' order by 1`,
  );
  return rows.map((row) => row.t);
};

suite('the migrator', async () => {
  test('applies what is missing in order, and nothing the second time', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(PAIR);
    assert.deepEqual(await migrate(ownerUrl, { mode: 'auto', directory }), { version: 2, applied: [1, 2] });
    assert.deepEqual(await migrate(ownerUrl, { mode: 'auto', directory }), { version: 2, applied: [] });
    assert.deepEqual(await tables(ownerUrl), ['a', 'b', 'schemaversion']);
  });

  test('runs each migration once when eight start at the same time on an empty database', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(PAIR);
    const done = await Promise.all(Array.from({ length: 8 }, () => migrate(ownerUrl, { mode: 'auto', directory })));
    assert.deepEqual(done.flatMap((one) => one.applied).sort(), [1, 2]);
    assert(done.every((one) => one.version === 2));
    assert.deepEqual(await query(ownerUrl, 'select count(*)::int as n from jeex.a'), [{ n: 1 }]);
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
    assert.deepEqual((await running).applied, [1, 2]);
    assert.match(notes[0] ?? '', /waiting for the lock "migrate": held by the session \d+ \(the holder\)/);
  });

  test('rolls a failing migration back whole, keeps the ones before it, and names the line', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf({ ...PAIR, '002.do.b.sql': 'create table b (id int);\n\nselect nothing;\n' });
    const failing = migrate(ownerUrl, { mode: 'auto', directory });
    await assert.rejects(failing, /migration 002 b failed and was rolled back: .*SQLSTATE 42703, line 3/);
    assert.deepEqual(await tables(ownerUrl), ['a', 'schemaversion']);
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
  const faults: [string, Record<string, string>, RegExp][] = [
    ['no migrations', {}, /there are no migrations/],
    ['a gap', { ...PAIR, '004.do.d.sql': '', '004.undo.d.sql': '' }, /004 d does not follow/],
    ['no first', withoutFirst, /002 b does not follow/],
    ['no undo', withoutUndo, /002 b has no undo/],
    ['an undo alone', { ...PAIR, '003.undo.c.sql': '' }, /undo 3 has no migration/],
    ['a strange name', { ...PAIR, '003.do.Bad Name.sql': '', '003.undo.c.sql': '' }, /is not named/],
    ['two of a number', { ...PAIR, '002.do.other.sql': '' }, /Two migrations found with version 2/],
  ];
  for (const [what, files, expected] of faults) {
    test(`changes nothing when the files have ${what}`, async () => {
      const { ownerUrl } = await useTestDatabase({ empty: true });
      await assert.rejects(migrate(ownerUrl, { mode: 'auto', directory: directoryOf(files) }), expected);
      assert.deepEqual(await tables(ownerUrl), []);
    });
  }

  const three = { ...PAIR, '003.do.c.sql': 'create table c (id int);', '003.undo.c.sql': 'drop table c;' };
  const drifts: [string, Record<string, string>, RegExp][] = [
    ['a changed file', { ...three, '001.do.a.sql': 'select 1;' }, /001 a was changed after it had been applied/],
    ['a database ahead', PAIR, /the database is at version 3, and this release knows up to 2/],
  ];
  for (const [what, files, expected] of drifts) {
    test(`refuses ${what} in every mode that looks`, async () => {
      const { ownerUrl } = await useTestDatabase({ empty: true });
      await migrate(ownerUrl, { mode: 'auto', directory: directoryOf(three) });
      const directory = directoryOf(files);
      await assert.rejects(migrate(ownerUrl, { mode: 'auto', directory }), expected);
      await assert.rejects(migrate(ownerUrl, { mode: 'check', directory }), expected);
      await assert.rejects(down(ownerUrl, 0, { directory }), expected);
      assert.match((await status(ownerUrl, { directory })).problems.join(), expected);
      assert.deepEqual(await migrate(ownerUrl, { mode: 'off', directory }), { version: 0, applied: [] });
    });
  }

  test('takes a file for the same with the line ends of another system', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    await migrate(ownerUrl, { mode: 'auto', directory: directoryOf(PAIR) });
    const windows = Object.entries(PAIR).map(([name, text]) => [name, text.replaceAll('\n', '\r\n')]);
    const directory = directoryOf(Object.fromEntries(windows));
    assert.deepEqual(await migrate(ownerUrl, { mode: 'auto', directory }), { version: 2, applied: [] });
  });

  test('only looks in mode check, also as the app', async () => {
    const { ownerUrl, appUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(three);
    await migrate(ownerUrl, { mode: 'auto', directory: directoryOf(PAIR) });
    await query(ownerUrl, 'grant usage on schema jeex to jeex_app');
    await assert.rejects(migrate(appUrl, { mode: 'check', directory }), /needs 3 \(missing: 003 c\)/);
    await migrate(ownerUrl, { mode: 'auto', directory });
    assert.deepEqual(await migrate(appUrl, { mode: 'check', directory }), { version: 3, applied: [] });
  });

  test('goes down to a version, newest first, and up again', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const directory = directoryOf(three);
    await migrate(ownerUrl, { mode: 'auto', directory });
    assert.deepEqual(await down(ownerUrl, 1, { directory }), { version: 1, applied: [3, 2] });
    assert.deepEqual(await tables(ownerUrl), ['a', 'schemaversion']);
    await assert.rejects(down(ownerUrl, 2, { directory }), /is at version 1, which is below 2/);
    assert.deepEqual(await down(ownerUrl, 1, { directory }), { version: 1, applied: [] });
    assert.deepEqual(await migrate(ownerUrl, { mode: 'auto', directory }), { version: 3, applied: [2, 3] });
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
        rest.filter((name) => !name.includes('schemaversion')),
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
  const rows = await query<{ name: string }>(
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
