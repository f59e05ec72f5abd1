import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseDirectives } from '../src/migrator/directives.ts';
import { readMigrations } from '../src/migrator/files.ts';

suite('the head of a file', () => {
  const misspelt: [string, string][] = [
    ['-- Destructive: x', 'destructive'],
    ['--destructive:all', 'destructive'],
    ['-- destructive : x', 'destructive'],
    ['--- destructive: x', 'destructive'],
    ['-- * destructive: x', 'destructive'],
    ['/* destructive: x */', 'destructive'],
    ['/*\n * A note.\n * destructive: x\n */', 'destructive'],
    ['/* one /* in */ another */ /* destructive: x', 'destructive'],
    ['/*\n-- destructive: x\n*/', 'destructive'],
    ['-- oldest_release: 014', 'oldest-release'],
    ['-- oldestRelease: 014', 'oldest-release'],
    ['-- DATA DEPENDENT:', 'data-dependent'],
    ['-- run:batches', 'run'],
    ['-- Run: batches', 'run'],
    ['-- Batch: a (id)', 'batch'],
    ['-- lint_ignore: a-rule: x', 'lint-ignore'],
  ];
  for (const [text, key] of misspelt) {
    test(`does not take ${JSON.stringify(text)} for a remark`, () => {
      const { problems } = parseDirectives(`-- A note.\n${text}`);
      assert.equal(problems.length, 1, problems.join());
      assert(problems[0]?.endsWith(`is written \`-- ${key}: …\`, on a line of its own`), problems[0]);
    });
  }

  test('takes for a remark what is one, and ends where the first statement begins', () => {
    const head = '-- Sealing: a word\n-- see http://x.example\n/* Note: nested /* in */ it */\n-- run on rows: all';
    const script = `${head}\n\n-- destructive: it\nselect 1;\n-- Run: batches`;
    const { directives, problems } = parseDirectives(script);
    assert.deepEqual(problems, []);
    assert.equal(directives.destructive, 'it');
  });

  test('of each released migration has nothing wrong', () => {
    assert.deepEqual(readMigrations().problems, []);
  });
});
