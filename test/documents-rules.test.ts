import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DIFF_LIMITS, type DiffHunk, diffTexts } from '../src/documents/diff.ts';
import { createDiffPool } from '../src/documents/diff-pool.ts';
import { answerFits, HEADLINE_START, HEADLINE_STOP, headlineHtml, searchQuery } from '../src/documents/documents.ts';
import { contentHash, entryParams } from '../src/documents/entries.ts';

const MARKS = { CONTEXT: ' ', ADDED: '+', REMOVED: '-' } as const;

describe('a search query', () => {
  const table: readonly (readonly [string, string])[] = [
    ['words "a phrase" or -without', 'words "a phrase" or -without'],
    ['--verbose', 'verbose'],
    [`${'-'.repeat(101)}x`, '-x'],
    ['a - ( - & | ! < -b', 'a -b'],
    ['"--quoted" foo--bar', '"--quoted" foo--bar'],
    ['"a"--b', '"a"b'],
    ['-https://example.org:8080/a?b=c&d now', '-"example.org:8080/a?b=c&d" now'],
    ['"see https://example.org"', '"see https://example.org"'],
  ];
  for (const [typed, query] of table) {
    it(`${typed.slice(0, 40)} is asked for as ${query}`, () => assert.equal(searchQuery(typed), query));
  }
});

/** Hunks as `diff -U` prints them, with the note on a missing last line ending. */
const unified = (hunks: readonly DiffHunk[]): string =>
  hunks
    .map(({ fromStart, fromLines, toStart, toLines, lines }) => {
      const body = lines.map(({ kind, text }) => {
        return MARKS[kind] + (text.endsWith('\n') ? text : `${text}\n\\ No newline at end of file\n`);
      });
      return `@@ -${fromStart},${fromLines} +${toStart},${toLines} @@\n${body.join('')}`;
    })
    .join('');

const split = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

/** Applies hunks as `patch` does, strictly. */
const patched = (from: string, hunks: readonly DiffHunk[]): string => {
  const source = split(from);
  const out: string[] = [];
  let at = 0;
  for (const hunk of hunks) {
    const begin = hunk.fromLines === 0 ? hunk.fromStart : hunk.fromStart - 1;
    out.push(...source.slice(at, begin));
    at = begin;
    assert.equal(hunk.toLines === 0 ? hunk.toStart : hunk.toStart - 1, out.length);
    for (const { kind, text } of hunk.lines) {
      if (kind !== 'ADDED') assert.equal(source[at++], text);
      if (kind !== 'REMOVED') out.push(text);
    }
    assert.equal(hunk.fromLines, hunk.lines.filter(({ kind }) => kind !== 'ADDED').length);
    assert.equal(hunk.toLines, hunk.lines.filter(({ kind }) => kind !== 'REMOVED').length);
  }
  return [...out, ...source.slice(at)].join('');
};

const edits = (hunks: readonly DiffHunk[]): number =>
  hunks.flatMap(({ lines }) => lines).filter(({ kind }) => kind !== 'CONTEXT').length;

const numbered = (count: number, changed: readonly number[] = []): string =>
  Array.from({ length: count }, (_, i) => `${changed.includes(i + 1) ? 'new' : 'line'} ${i + 1}\n`).join('');

/** Numbers below `limit`, the same ones in every run. */
const randomOf = (seed: number) => {
  let state = seed;
  return (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
};

describe('a difference', () => {
  // What GNU diff prints with -U and the context given.
  const table: readonly (readonly [name: string, from: string, to: string, context: number, expected: string])[] = [
    ['of equal texts', 'a\nb\n', 'a\nb\n', 3, ''],
    ['of empty texts', '', '', 3, ''],
    ['from nothing', '', 'a\nb\n', 3, '@@ -0,0 +1,2 @@\n+a\n+b\n'],
    ['to nothing', 'a\nb\n', '', 3, '@@ -1,2 +0,0 @@\n-a\n-b\n'],
    ['in the middle', 'a\nb\nc\n', 'a\nx\nc\n', 1, '@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n'],
    ['without context', 'a\nb\nc\n', 'a\nx\nc\n', 0, '@@ -2,1 +2,1 @@\n-b\n+x\n'],
    ['an insertion without context', 'a\nb\n', 'a\nx\nb\n', 0, '@@ -1,0 +2,1 @@\n+x\n'],
    ['a removal without context', 'a\nx\nb\n', 'a\nb\n', 0, '@@ -2,1 +1,0 @@\n-x\n'],
    ['an appended line', 'a\nb\n', 'a\nb\nc\n', 3, '@@ -1,2 +1,3 @@\n a\n b\n+c\n'],
    ['of a last line ending', 'a\nb\n', 'a\nb', 3, '@@ -1,2 +1,2 @@\n a\n-b\n+b\n\\ No newline at end of file\n'],
    ['of line endings', 'a\r\n', 'a\n', 3, '@@ -1,1 +1,1 @@\n-a\r\n+a\n'],
    [
      'near each other: one hunk',
      numbered(9),
      numbered(9, [2, 5]),
      1,
      '@@ -1,6 +1,6 @@\n line 1\n-line 2\n+new 2\n line 3\n line 4\n-line 5\n+new 5\n line 6\n',
    ],
    [
      'apart: two hunks',
      numbered(9),
      numbered(9, [2, 6]),
      1,
      '@@ -1,3 +1,3 @@\n line 1\n-line 2\n+new 2\n line 3\n@@ -5,3 +5,3 @@\n line 5\n-line 6\n+new 6\n line 7\n',
    ],
  ];
  for (const [name, from, to, context, expected] of table) {
    it(`${name} reads as a unified diff`, () => {
      const { hunks, truncated } = diffTexts(from, to, context);
      assert.equal(unified(hunks), expected);
      assert.equal(truncated, false);
      assert.equal(patched(from, hunks), to);
    });
  }

  it('turns any text into any other, whatever lines they share', () => {
    const random = randomOf(7);
    const text = () => Array.from({ length: random(40) }, () => 'abcde'[random(5)]).join(random(2) ? '\n' : '\n\n');
    for (let round = 0; round < 500; round++) {
      const [from, to, context] = [text(), text(), random(4)];
      const { hunks } = diffTexts(from, to, context);
      assert.equal(patched(from, hunks), to);
    }
  });

  it('is the shortest one while its limits last, and still correct past them', () => {
    const from = 'a\nb\nc\na\nb\nb\na\n';
    const to = 'c\nb\na\nb\na\nc\n';
    assert.equal(edits(diffTexts(from, to, 3).hunks), 5);
    const coarse = diffTexts(from, to, 3, { ...DIFF_LIMITS, edits: 1 });
    assert.equal(edits(coarse.hunks), 13);
    assert.equal(patched(from, coarse.hunks), to);
  });

  it('that is too large ends early and says so', () => {
    const large = diffTexts(numbered(30_000), numbered(30_000).replaceAll('line', 'new'), 3);
    assert.equal(large.truncated, true);
    assert.equal(large.hunks[0]?.fromLines, DIFF_LIMITS.lines);
    assert.equal(large.hunks[0]?.toLines, 0);
    const giant = 3 * 1024 * 1024;
    const oneLine = diffTexts('é'.repeat(giant / 2), 'è'.repeat(giant / 2), 3);
    assert.deepEqual(
      oneLine.hunks.map(({ lines }) => lines.map(({ kind }) => kind)),
      [['REMOVED']],
    );
    assert.equal(oneLine.truncated, true);
  });

  it('of the largest and oddest texts ends in bounded work', () => {
    const lines = (count: number, limit: number, seed: number) => {
      const random = randomOf(seed);
      return Array.from({ length: count }, () => String.fromCharCode(97 + random(limit))).join('\n');
    };
    const million = [lines(1_000_000, 26, 1), lines(1_000_000, 26, 2)] as const;
    assert.equal(diffTexts(...million, 3).truncated, true);
    const reversed = Array.from({ length: 100_000 }, (_, i) => i);
    assert.equal(diffTexts(reversed.join('\n'), reversed.reverse().join('\n'), 3).truncated, true);
    assert.equal(edits(diffTexts('\n'.repeat(3_000_000), `${'\n'.repeat(2_999_999)}x`, 3).hunks), 2);
  });
});

describe('the pool of differences', () => {
  const job = { from: 'a\n', to: 'b\n', context: 3 };
  const slow = { from: 'a\nb\n'.repeat(400_000), to: 'b\nb\na\n'.repeat(300_000), context: 3 };
  const { signal } = new AbortController();

  it('works beside the event loop, which goes on turning', async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 5);
    await createDiffPool().run(slow, signal);
    clearInterval(timer);
    assert.ok(turns > 10, `the event loop turned ${turns} times`);
  });

  it('refuses what its queue does not hold, and ends what takes too long, with a thread that is replaced', async () => {
    const pool = createDiffPool({ workers: 1, queue: 1, timeoutMs: 150 });
    const late = assert.rejects(pool.run(slow, signal), {
      reason: 'OVERLOADED',
      message: 'the difference took too long',
    });
    const next = pool.run(slow, signal);
    const lateToo = assert.rejects(next, { reason: 'OVERLOADED' });
    await assert.rejects(pool.run(job, signal), { reason: 'OVERLOADED', message: 'too many differences are waiting' });
    await late;
    await lateToo;
  });

  it('answers a call that has gone at once, and works on', async () => {
    const pool = createDiffPool({ workers: 1, queue: 4 });
    const gone = new AbortController();
    const [running, waiting] = [pool.run(slow, gone.signal), pool.run(slow, gone.signal)];
    gone.abort(new Error('gone'));
    await assert.rejects(running, { message: 'gone' });
    await assert.rejects(waiting, { message: 'gone' });
    assert.equal((await pool.run(job, signal)).hunks.length, 1);
  });
});

describe('a headline', () => {
  const b = (word: string) => `${HEADLINE_START}${word}${HEADLINE_STOP}`;
  const table: readonly (readonly [string, string])[] = [
    ['', ''],
    [`the ${b('fox')} jumps`, 'the <b>fox</b> jumps'],
    [`<script>${b('x')}</script> & "y" 'z'`, '&lt;script&gt;<b>x</b>&lt;/script&gt; &amp; &quot;y&quot; &#39;z&#39;'],
    [`${HEADLINE_START}cut`, '<b>cut</b>'],
    ['😀'.repeat(1500), '😀'.repeat(1000)],
  ];
  for (const [headline, html] of table) {
    it(`of ${JSON.stringify(headline.slice(0, 20))} is safe HTML`, () => assert.equal(headlineHtml(headline), html));
  }
});

describe('entries', () => {
  it('become arrays of one length, with a hash over UTF-8 and null for what is absent', () => {
    const entry = { documentType: 'idea', content: 'é', reason: '', executionId: '' };
    assert.deepEqual(entryParams([{ ...entry, expectedVersion: 0, grammarScore: 0, metadata: { a: 1 } }, entry]), {
      document_types: ['idea', 'idea'],
      contents: ['é', 'é'],
      hashes: [contentHash('é'), contentHash('é')],
      metadatas: ['{"a":1}', '{}'],
      reasons: ['', ''],
      readabilities: [null, null],
      grammars: [0, null],
      expected: [0, null],
      executions: [null, null],
    });
    assert.equal(contentHash('é').toString('hex'), '4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c');
  });

  it('fit while their answer, which has all but the contents, does', () => {
    const mebibyte = 1024 * 1024;
    assert.equal(answerFits(4 * mebibyte, [3 * mebibyte]), true);
    assert.equal(answerFits(4 * mebibyte, [0]), false);
    assert.equal(answerFits(4 * mebibyte - 50_000, Array(100).fill(0)), false);
    assert.equal(answerFits(3 * mebibyte, Array(100).fill(0)), true);
  });
});
