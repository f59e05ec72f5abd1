import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { migrateGenerate } from '../src/commands/migrate-generate.ts';
import { ConfigError } from '../src/config.ts';
import { diffCatalogues } from '../src/migrator/catalogue.ts';
import { parseDirectives } from '../src/migrator/directives.ts';
import { expectedCatalogue } from '../src/migrator/drift.ts';
import { latestVersion, MIGRATIONS, SCHEMA_FILE } from '../src/migrator/files.ts';
import { declaredFunctions, parseDeclared, readDeclared } from '../src/migrator/generate/declared.ts';
import { Formatter } from '../src/migrator/generate/format.ts';
import { doHeader } from '../src/migrator/generate/header.ts';
import { loadLibraries } from '../src/migrator/generate/libraries.ts';
import { openScratch } from '../src/migrator/generate/scratch.ts';
import { differencesOf, makeSides } from '../src/migrator/generate/sides.ts';
import { testCluster } from './support/postgres.ts';

const libraries = await loadLibraries();
const { postgres, parser } = libraries;

test('the declared schema is what the migrations make, as pg-delta and as the catalogue see it', async () => {
  await using scratch = await openScratch(testCluster());
  const sides = await makeSides(MIGRATIONS, scratch, libraries, () => {});
  assert.deepEqual(differencesOf(sides, libraries), []);
  assert.deepEqual(sides.unmodelled, []);
  const written = expectedCatalogue();
  assert.equal(written.version, latestVersion());
  assert.deepEqual(diffCatalogues(sides.catalogues.goal, written.catalogue), []);
});

test('a name that no file can have is refused', async () => {
  for (const name of ['Upper', 'a-b', '../up', 'x'.repeat(61)]) {
    await assert.rejects(
      migrateGenerate({ name }),
      (error) => error instanceof ConfigError && /1 to 60/.test(error.message),
    );
  }
});

test('a declared schema that cannot be meant is answered with its line', () => {
  const directory = mkdtempSync(join(tmpdir(), 'jeex-declared-'));
  try {
    assert.throws(() => readDeclared(directory, parser), /^Error: there is no .*schema\.sql: bring it back/);
    for (const [text, refused] of [
      ['', /^DeclaredError: schema\.sql:1: it declares no table/],
      ['create type t as (a int);', /^DeclaredError: schema\.sql:1: it declares no table/],
      [
        'create table t (a int);\r\ninsert into t\r\nvalues (1);',
        /^DeclaredError: schema\.sql:2: this declares nothing/,
      ],
      ['create table t (a int);\ncommit;', /^DeclaredError: schema\.sql:2: this declares nothing/],
      [
        'create table t (\n  -- renamed_from: b\n  a int);',
        /^DeclaredError: schema\.sql:2: a rename is a line of its own/,
      ],
      [
        'create table t (\n  -- Renamed-From: b\n  a int);',
        /^DeclaredError: schema\.sql:2: a rename is a line of its own/,
      ],
      [
        'create table t (\n  a int -- renamed-from: b\n);',
        /^DeclaredError: schema\.sql:2: a rename is a line of its own/,
      ],
    ] as const) {
      writeFileSync(join(directory, SCHEMA_FILE), text);
      assert.throws(() => readDeclared(directory, parser), refused, text);
    }
    writeFileSync(join(directory, SCHEMA_FILE), 'create table t (\r\n  -- renamed-from: b\r\n  a int);\r\n');
    const declared = readDeclared(directory, parser);
    assert.deepEqual(declared.renames, [{ table: 't', column: 'a', from: 'b', line: 2 }]);
    assert.ok(!declared.statements[0]?.text.includes('\r'));
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a generated statement is simplified without another meaning', () => {
  const formatter = new Formatter(postgres, new Set(['sum']));
  for (const [sql, expected] of [
    [
      'ALTER TABLE "jeex"."t" ADD COLUMN "A" text DEFAULT \'Ä "B"  jeex.x\'::text',
      `alter table t add column "A" text default 'Ä "B"  jeex.x'::text`,
    ],
    ['DROP TABLE "jeex"."user", "jeex"."role", "public"."t"', 'drop table "user", role, public.t'],
    // Before a function of this schema PostgreSQL would find its own.
    ['DROP FUNCTION "jeex"."sum"(integer)', 'drop function jeex.sum(integer)'],
    [
      'CREATE FUNCTION jeex.f() RETURNS int\n LANGUAGE sql\nAS $f$ SELECT "jeex"."N" $f$',
      'create function f() returns int\n language sql\nas $f$ SELECT "jeex"."N" $f$',
    ],
    [
      'CREATE TABLE "jeex"."t" ("a" numeric(5, 2), CHECK (("a" IN (1, 2))))',
      'create table t (\n  a numeric(5, 2),\n  check ((a in (1, 2)))\n)',
    ],
  ] as const) {
    assert.equal(formatter.format(sql), expected);
  }
  const long = formatter.format(`ALTER TABLE "jeex"."t" ADD CHECK (${'"a" > 0 AND '.repeat(30)}"b" = 'no   break')`);
  assert.ok(long.split('\n').every((line) => line.length <= 120) && long.includes("'no   break'"), long);
});

test('a rename belongs to the table or column below it, and a function is known by its text', () => {
  const declared = parseDeclared(
    `-- ${'ä'.repeat(60)}
-- renamed-from: notes
-- What a person writes.
create table memos (
  id bigint, kind text,
  -- renamed-from: body
  content text);
create function f() returns int language sql return 1;
-- A comment.
create function f(a int) returns int language sql return a;`,
    parser,
  );
  assert.deepEqual(declared.renames, [
    { table: 'memos', column: null, from: 'notes', line: 2 },
    { table: 'memos', column: 'content', from: 'body', line: 6 },
  ]);
  assert.deepEqual(declaredFunctions(declared).get('f'), [
    'create function f() returns int language sql return 1',
    'create function f(a int) returns int language sql return a',
  ]);
  for (const text of [
    '-- renamed-from: a\ncreate type t as (a int);\ncreate table t (a int);',
    '-- renamed-from: A\ncreate table t (a int);',
    '-- renamed-from: a\ncreate index on t (a);\ncreate table t (a int);',
  ]) {
    assert.throws(() => parseDeclared(text, parser), /^DeclaredError: schema\.sql:1: /);
  }
});

test('no remark in the head of a generated migration is taken for a directive', () => {
  const what = `does this ${'and that '.repeat(30)}`;
  for (let indent = 0; indent < 60; indent += 1) {
    const advice = `${'x'.repeat(indent)} say so in its head, or nullable: as in \`run: batches\``;
    const effects = { locked: new Map([['AccessExclusiveLock' as const, ['users']]]), rewritten: ['users'] };
    const draft = {
      run: 'transaction' as const,
      statements: [],
      undo: [],
      effects,
      undoEffects: effects,
      summary: [],
      doubts: ['If users.b is a under another name, write `-- renamed-from: a` above it in schema.sql.'],
    };
    const findings = [{ class: 'destructive' as const, line: 1, what, advice }];
    const { directives, problems } = parseDirectives(
      doHeader({ version: 14, name: 'x', draft, findings, rules: ['ban-drop-not-null', 'other'] }),
    );
    assert.deepEqual(problems, []);
    assert.equal(directives.destructive, what.trim());
    assert.deepEqual(
      directives.lintIgnores.map(({ rule }) => rule),
      ['ban-drop-not-null'],
    );
  }
});
