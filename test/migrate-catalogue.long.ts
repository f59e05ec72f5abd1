import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { Client } from 'pg';
import { openClient } from '../src/db/connection.ts';
import { type Catalogue, describeDifference, diffCatalogues, readCatalogue } from '../src/migrator/catalogue.ts';
import { drift, expectedCatalogue, writeCatalogue } from '../src/migrator/drift.ts';
import { directoryOf } from './support/migrations.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { STRANGERS, TAMPERINGS } from './support/tamperings.ts';

const MARKS = { extra: '+', missing: '-', changed: '~' } as const;
const named = (before: Catalogue, now: Catalogue): string[] =>
  diffCatalogues(before, now).map(({ kind, identity }) => MARKS[kind] + identity);

suite('the catalogue of a schema', async () => {
  const db = await useTestDatabase();
  const owner = await useOwner(db);
  const admin = await connectAs(db.adminUrl);
  await owner.query(STRANGERS);
  const before = await readCatalogue(owner);
  for (const [what, sql] of TAMPERINGS) {
    await admin.query(sql).catch((error: Error) => assert.fail(`${what}: ${error.message}`));
  }
  const now = await readCatalogue(owner);
  const found = new Set(named(before, now));

  for (const [what, , expected] of TAMPERINGS) {
    test(`tells when somebody ${what}`, () => {
      assert.deepEqual(
        expected.filter((one) => !found.has(one)),
        [],
      );
    });
  }

  test('tells of nothing else', () => {
    const expected = new Set(TAMPERINGS.flatMap(([, , names]) => names));
    assert.deepEqual(
      [...found].filter((one) => !expected.has(one)),
      [],
    );
  });

  test('is the same for a superuser and for the service', async () => {
    assert.deepEqual(named(now, await readCatalogue(admin)), []);
    assert.deepEqual(named(now, await readCatalogue(await connectAs(db.urlAs('app')))), []);
  });
});

suite('two catalogues of one schema are the same', async () => {
  const db = await useTestDatabase();
  const owner = await useOwner(db);
  const admin = await connectAs(db.adminUrl);
  /** What a change of what is no part of it makes. */
  const afterwards = async (...statements: readonly string[]): Promise<string[]> => {
    const before = await readCatalogue(owner);
    for (const statement of statements) await admin.query(statement);
    return named(before, await readCatalogue(owner));
  };

  test('whatever the session says about how things are written', async () => {
    await owner.query(`create table moments (at timestamptz default '2026-01-02 03:04+05', span interval default '1 day 2 hours',
      data bytea default '\\x00ff', third float8 default float8 '0.30000000000000004', "Odd Name" text)`);
    const session = new Client({ connectionString: db.ownerUrl });
    await session.connect();
    after(() => session.end());
    await session.query(`set search_path = jeex, pg_temp; set quote_all_identifiers = on; set datestyle = 'German';
      set intervalstyle = 'iso_8601'; set timezone = 'Asia/Kathmandu'; set bytea_output = 'escape'; set extra_float_digits = 0`);
    assert.deepEqual(named(await readCatalogue(owner), await readCatalogue(session)), []);
  });

  test('in whatever order its columns came, and whatever its rows are', async () => {
    await admin.query('create table pairs (one int, other text); alter table pairs owner to jeex_owner');
    const anew = 'create table pairs (gone int, other text, one int); alter table pairs owner to jeex_owner';
    const rows = `insert into pairs values (1, 'x', 2)`;
    assert.deepEqual(await afterwards('drop table pairs', anew, rows, 'alter table pairs drop column gone'), []);
  });

  test("whatever is done to the migrator's own tables", async () => {
    const tampering = 'alter table schemaversion add column note text not null default 1, add check (version > 0)';
    assert.deepEqual(
      await afterwards(tampering, 'grant all on schemaversion to public', 'create index on schemaversion (name)'),
      [],
    );
  });

  test('with an extension among its objects', async () => {
    assert.deepEqual(await afterwards('alter extension pgcrypto set schema jeex'), []);
  });

  test('whoever granted a right', async () => {
    await owner.query(
      'create table shared (); grant select on shared to jeex_backup with grant option; grant select on shared to jeex_app',
    );
    const regrant = 'set role jeex_backup; grant select on shared to jeex_app; reset role';
    assert.deepEqual(await afterwards(regrant), []);
  });
});

suite('a difference in words', () => {
  test('is a definition that is missing or extra, where it is short', () => {
    const missing = { identity: 'column jeex.t.a', kind: 'missing', expected: 'text default 1' } as const;
    assert.equal(describeDifference(missing), 'column jeex.t.a is missing (text default 1)');
    const extra = { identity: 'function jeex.f()', kind: 'extra', found: 'CREATE\nbody' } as const;
    assert.equal(describeDifference(extra), 'function jeex.f() should not be there');
  });

  test('is the first line of a function that differs', () => {
    const changed = { identity: 'function jeex.f()', kind: 'changed', expected: 'a\nb\nc', found: 'a\nx\ny' } as const;
    assert.equal(describeDifference(changed), 'function jeex.f() differs in line 2: expected "b", found "x"');
    const shorter = { ...changed, found: 'a' };
    assert.equal(describeDifference(shorter), 'function jeex.f() differs in line 2: expected "b", found its end');
    const longer = { ...changed, found: 'a\nb\nc\nd' };
    assert.equal(describeDifference(longer), 'function jeex.f() differs in line 4: expected its end, found "d"');
  });

  test('of long lines is where they part', () => {
    const [start, end] = ['s'.repeat(500), 'e'.repeat(500)];
    const changed = { identity: 'i', kind: 'changed', expected: `${start}A${end}`, found: `${start}B${end}` } as const;
    const around = (letter: string) => `"…${'s'.repeat(60)}${letter}${'e'.repeat(139)}…"`;
    assert.equal(describeDifference(changed), `i differs: expected ${around('A')}, found ${around('B')}`);
  });
});

/** Identities, what was done to them, and what the operator is told. */
const ADVISED: readonly [string, string, RegExp][] = [
  [
    'table jeex.documents',
    'alter table documents no force row level security',
    /^at once, .*`alter table jeex\.documents enable row level security, force row level security`$/,
  ],
  [
    'index jeex.exports_pending',
    `update pg_index set indisvalid = false where indexrelid = 'exports_pending'::regclass`,
    /^`reindex index concurrently jeex\.exports_pending`$/,
  ],
  [
    'constraint changes_chain_sha256 on jeex.changes',
    `alter table changes drop constraint changes_chain_sha256,
     add constraint changes_chain_sha256 check (octet_length(chain) = 32) not valid`,
    /^once every row fits: `alter table jeex\.changes validate constraint changes_chain_sha256`$/,
  ],
  [
    'trigger users_known_key_next on jeex.users',
    'alter table users disable trigger users_known_key_next',
    /^`alter table jeex\.users enable trigger users_known_key_next`$/,
  ],
  [
    'index jeex.requests_age',
    'drop index requests_age',
    /^if it is to go, drop it in a migration; if not, make it again/,
  ],
  ['column jeex.users.note', 'alter table users add note text', /^if it is to stay, .*; if not, remove it$/],
  [
    'column jeex.exports.status',
    `alter table exports alter status set default 'X'`,
    /^if it is to stay so, .*put it back as migrations\/catalogue\.json has it$/,
  ],
];

suite('the drift of a live database', async () => {
  const db = await useTestDatabase();
  const owner = await useOwner(db);
  const admin = await connectAs(db.adminUrl);
  const { version, catalogue } = expectedCatalogue();

  test('is none where nobody has tampered, whoever asks', async () => {
    const service = await openClient(db.appUrl, 'test');
    after(() => service.end());
    for (const client of [owner, admin, service]) {
      assert.deepEqual(await drift(client), { compared: true, problems: [] });
    }
  });

  test('comes with what to do', async () => {
    const tampered = await useTestDatabase();
    const client = await connectAs(tampered.adminUrl);
    for (const [, tampering] of ADVISED) await client.query(tampering);
    const found = await drift(client);
    assert(found.compared);
    const advice = new Map(found.problems.map((problem) => [problem.identity, problem.advice]));
    for (const [identity, , expected] of ADVISED) assert.match(advice.get(identity) ?? '', expected, identity);
    assert.equal(found.problems.length, ADVISED.length);
  });

  test('cannot be told at any other version than the newest', async () => {
    const directory = directoryOf({});
    for (const [other, reason] of [
      [version + 1, /run `jeex-persistence migrate up` first/],
      [version - 1, /ask with the release that migrated it/],
    ] as const) {
      writeCatalogue(directory, other, catalogue);
      const found = await drift(owner, directory);
      assert(!found.compared);
      assert.match(found.reason, reason);
    }
  });

  test('cannot be told by another major version, which writes definitions its own way', async () => {
    const newer = { query: async () => ({ rows: [{ major: 19 }] }) } as unknown as Client;
    const found = await drift(newer);
    assert(!found.compared);
    assert.match(found.reason, /as PostgreSQL 18 writes them, and the server is PostgreSQL 19/);
  });

  test('cannot be told when a migration runs meanwhile', async () => {
    const query = async (text: string, values?: unknown[]) => {
      const answer = await owner.query(text, values);
      if (text === 'rollback') await admin.query('insert into schemaversion (version) values (999)');
      return answer;
    };
    try {
      const found = await drift({ query } as Client);
      assert(!found.compared);
      assert.match(found.reason, /a migration ran meanwhile/);
    } finally {
      await admin.query('delete from schemaversion where version = 999');
    }
  });

  test('cannot be told without a file that says what should be', async () => {
    await assert.rejects(
      drift(owner, directoryOf({})),
      /catalogue\.json does not tell .*: ENOENT.*; install the package again/,
    );
    const broken = directoryOf({ 'catalogue.json': '{"version": 1}' });
    await assert.rejects(drift(owner, broken), /does not tell what the migrations make/);
  });

  test('is told from a file that says what was written, an object a line in order', () => {
    const directory = directoryOf({});
    writeCatalogue(directory, 7, new Map([...catalogue].reverse()));
    assert.deepEqual(expectedCatalogue(directory), { version: 7, catalogue });
    const lines = readFileSync(join(directory, 'catalogue.json'), 'utf8').split('\n');
    const identities = lines.flatMap((line) => /^ {4}"(.+?)": /.exec(line)?.[1] ?? []);
    assert.equal(identities.length, catalogue.size);
    assert.deepEqual(identities, identities.toSorted());
  });
});
