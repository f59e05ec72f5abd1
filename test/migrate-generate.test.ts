import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDirectives } from '../src/migrator/directives.ts';
import { declaredFunctions, parseDeclared } from '../src/migrator/generate/declared.ts';
import { Formatter } from '../src/migrator/generate/format.ts';
import { doHeader } from '../src/migrator/generate/header.ts';
import { loadLibraries } from '../src/migrator/generate/libraries.ts';

const { postgres, parser } = await loadLibraries();

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
    '-- renamed-from: a\nselect 1;',
    '-- renamed-from: A\ncreate table t (a int);',
    '-- renamed-from: a',
  ]) {
    assert.throws(() => parseDeclared(text, parser), /^DeclaredError: schema\.sql:1: /);
  }
});

test('no remark in the head of a generated migration is taken for a directive', () => {
  const what = `does this ${'and that '.repeat(30)}`;
  for (let indent = 0; indent < 60; indent += 1) {
    const advice = `${'x'.repeat(indent)} say so in its head, or nullable: as in \`run: batches\``;
    const draft = {
      run: 'transaction' as const,
      statements: [],
      undo: [],
      effects: { locked: new Map([['AccessExclusiveLock' as const, ['users']]]), rewritten: ['users'] },
      summary: [],
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
