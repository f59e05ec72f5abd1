import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { Client } from 'pg';
import { createDatabase, first } from '../src/db/pool.ts';
import { indexHeads } from '../src/documents/sql.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { documents, projects } = service;
const db = await createDatabase({ url: service.db.appUrl, size: 2 });

/** A project in a language, with these heads. */
const projectWith = async (language: string, heads: Readonly<Record<string, string>>): Promise<string> => {
  const { projectId } = await newProject(service, language);
  for (const [documentType, content] of Object.entries(heads)) {
    await documents.appendVersion({ projectId, documentType, content });
  }
  return projectId;
};

const search = async (projectId: string, query: string, pageSize = 0) => {
  const matches = [];
  let pageToken = '';
  do {
    const page = await documents.searchDocuments({ projectId, query, pageSize, pageToken });
    matches.push(...page.matches);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return matches;
};
const typesOf = async (projectId: string, query: string, pageSize = 0) =>
  (await search(projectId, query, pageSize)).map(({ version }) => version?.documentType);

/** Makes every vector that is missing; others may be doing so at the same time. */
const indexAll = async (): Promise<void> => {
  for (let round = 0; round < 1000 && (await staleHeads()) > 0; round++) await db.run(indexHeads, { most: 50 });
  assert.equal(await staleHeads(), 0);
};
const owner = new Client({ connectionString: service.db.ownerUrl });
await owner.connect();
const staleHeads = async (): Promise<number> => {
  const { rows } = await owner.query('select count(*) from jeex.documents where search_version <> head_version');
  return Number(rows[0].count);
};

describe('searching documents', () => {
  after(() => Promise.all([db.end(), owner.end()]));

  it('finds its way through texts that PostgreSQL alone would read for minutes', async () => {
    const projectId = await projectWith('en', {
      runs: `fox ${'a_'.repeat(131_000)}`,
      tags: `fox ${'<!--'.repeat(60_000)}`,
      plain: 'a fox',
    });
    assert.deepEqual((await typesOf(projectId, 'fox')).sort(), ['plain', 'runs', 'tags']);
    await indexAll();
    assert.deepEqual((await typesOf(projectId, 'fox')).sort(), ['plain', 'runs', 'tags']);
  });

  it("knows the forms of a word in the project's language, with and without a stored vector", async () => {
    const table = [
      { language: 'en', content: 'Foxes were running quickly', found: ['fox', 'run'], missed: ['hare'] },
      { language: 'en-GB', content: 'the connected pipes', found: ['connections'], missed: ['the'] },
      { language: 'de', content: 'Die Häuser standen still', found: ['haus', 'häusern'], missed: ['die'] },
      { language: 'ru', content: 'Новые документы', found: ['документ', 'документов'], missed: ['новости'] },
      { language: 'PT-br', content: 'As cadeiras vermelhas', found: ['cadeira'], missed: ['mesa'] },
      { language: 'eo', content: 'La hundoj kuras', found: ['hundoj'], missed: ['hundo'] },
    ];
    const projectIds = [];
    for (const { language, content } of table) projectIds.push(await projectWith(language, { idea: content }));
    for (const round of ['on the fly', 'from the vector']) {
      for (const [i, { language, found, missed }] of table.entries()) {
        const id = projectIds[i] as string;
        for (const query of found)
          assert.deepEqual(await typesOf(id, query), ['idea'], `${language} ${query} ${round}`);
        for (const query of missed) assert.deepEqual(await typesOf(id, query), [], `${language} ${query} ${round}`);
      }
      await indexAll();
    }
  });

  it('takes what one types into a search box', async () => {
    const projectId = await projectWith('en', { a: 'red apple tree', b: 'apple red', c: 'green pear' });
    const table: readonly (readonly [string, readonly string[]])[] = [
      ['"red apple"', ['a']],
      ['apple -tree', ['b']],
      ['pear or tree', ['a', 'c']],
      ['the', []],
      ['   ', []],
      [`"' | & ! <-> :* ( \\ --`, []],
      ['-apple', ['c']],
    ];
    for (const [query, types] of table) assert.deepEqual((await typesOf(projectId, query)).sort(), types, query);
    await assert.rejects(documents.searchDocuments({ projectId, query: '' }), { reason: 'INVALID_FIELD' });
    await assert.rejects(documents.searchDocuments({ projectId, query: 'x'.repeat(1001) }), {
      reason: 'INVALID_FIELD',
    });
  });

  it('takes any number of minus signs', async () => {
    const projectId = await projectWith('en', { a: 'red apple', b: 'green pear' });
    for (const between of ['', ' ', '\n', '(', ')', '&', '|', '!', '<', ' (!']) {
      assert.deepEqual(await typesOf(projectId, `${`-${between}`.repeat(201)}apple`), ['b'], between);
      assert.deepEqual(await typesOf(projectId, `${`-${between}`.repeat(200)}apple`), ['a'], between);
    }
  });

  it('finds the document that holds a pasted URL', async () => {
    const urls = ['https://example.org:8443/a/b?c=d&e=f', 'http://localhost:8080/x', 'ftp://example.org/a'];
    const heads = Object.fromEntries(urls.map((url, i) => [`url${i}`, `It is at ${url} for now.`]));
    const projectId = await projectWith('en', heads);
    for (const [i, url] of urls.entries()) assert.deepEqual(await typesOf(projectId, url), [`url${i}`], url);
  });

  it('looks at heads alone, and sees a new one at once', async () => {
    const projectId = await projectWith('en', { idea: 'an old apple' });
    await indexAll();
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'a new pear' });
    assert.deepEqual(await typesOf(projectId, 'apple'), []);
    const [match] = await search(projectId, 'pears');
    assert.equal(match?.version?.version, 2);
    assert.equal(match.version.content, '');
    await indexAll();
    assert.deepEqual([await typesOf(projectId, 'apple'), await typesOf(projectId, 'pear')], [[], ['idea']]);
  });

  it('ranks the best first, and pages through equal ranks without a gap or a repetition', async () => {
    const heads = Object.fromEntries(Array.from({ length: 11 }, (_, i) => [`same${i}`, 'an apple among pears']));
    const projectId = await projectWith('en', { ...heads, best: 'apple apple apple', middle: 'apple, apple' });
    const whole = await search(projectId, 'apple');
    const types = whole.map(({ version }) => version?.documentType);
    assert.deepEqual(types, ['best', 'middle', ...Object.keys(heads).sort()]);
    assert.ok(whole.every((match, i) => match.rank > 0 && match.rank <= (whole[i - 1]?.rank ?? 1)));
    for (const pageSize of [1, 2, 3, 5]) assert.deepEqual(await typesOf(projectId, 'apple', pageSize), types);
    await indexAll();
    assert.deepEqual(await search(projectId, 'apple', 4), whole);
    const { nextPageToken: pageToken } = await documents.searchDocuments({ projectId, query: 'apple', pageSize: 1 });
    await assert.rejects(documents.searchDocuments({ projectId, query: 'pears', pageToken }), {
      reason: 'INVALID_PAGE_TOKEN',
    });
  });

  it('shows where, as HTML that is safe whatever the document holds', async () => {
    const projectId = await projectWith('en', {
      idea: 'if a < b then \u0002apples\u0003 && <script>alert("x")</script> are good',
    });
    const [match] = await search(projectId, 'apple');
    assert.match(match?.headline ?? '', /<b>apples<\/b> &amp;&amp; .*alert\(&quot;x&quot;\)/);
    assert.doesNotMatch(match?.headline ?? '', /<(?!\/?b>)/);
    const words = await projectWith('en', { idea: `${'filler '.repeat(20_000)}apple${' filler'.repeat(20_000)}` });
    const [far] = await search(words, 'apple');
    assert.match(far?.headline ?? '', /filler <b>apple<\/b> filler/);
    assert.ok((far?.headline ?? '').length < 1000);
  });

  it('reads the first 256 KiB of a document, to a whole character', async () => {
    const filler = 'éé '.repeat(52_428);
    assert.equal(Buffer.byteLength(filler), 262_140);
    const projectId = await projectWith('en', { in: `${filler}abc 😀`, cut: `${filler}ab😀`, out: `${filler}    abc` });
    assert.deepEqual(await typesOf(projectId, 'abc'), ['in']);
    await indexAll();
    assert.deepEqual(await typesOf(projectId, 'abc'), ['in']);
  });

  it('ends its pages early where the documents are large, and still finds all', async () => {
    const { projectId } = await newProject(service);
    const content = `apple ${'other words '.repeat(30_000)}`;
    const types = Array.from({ length: 20 }, (_, i) => `doc${String(i).padStart(2, '0')}`);
    for (const documentType of types) await documents.appendVersion({ projectId, documentType, content });
    await indexAll();
    const page = await documents.searchDocuments({ projectId, query: 'apple', pageSize: 1000 });
    assert.ok(page.matches.length > 1 && page.matches.length < 20);
    assert.deepEqual(await typesOf(projectId, 'apple', 1000), types);
  });

  it('answers a long query over repetitive documents', async () => {
    const words = Array.from({ length: 250 }, (_, i) => `w${i.toString(36)}`);
    const projectId = await projectWith('en', {
      first: `${words.join(' ')} `.repeat(250),
      second: 'other words '.repeat(21_000),
    });
    await indexAll();
    assert.deepEqual(await typesOf(projectId, words.join(' ').slice(0, 1000)), ['first']);
    assert.deepEqual(await typesOf(projectId, 'words other '.repeat(80)), ['second']);
  });

  it('survives the oddest documents, and vectors that cannot be', async () => {
    // More than is read of a document.
    const words = (next: (i: number) => string) =>
      `apple ${Array.from({ length: 60_000 }, (_, i) => next(i)).join('')}`;
    const odd = {
      blank: ' '.repeat(3_000_000),
      empty: '',
      hosts: words((i) => `a${i}.bc/d${i.toString(36)} `),
      hyphens: words((i) => `Ⱥ${String.fromCodePoint(19968 + i)}-Ⱦ${String.fromCodePoint(19968 + i)} `),
      short: words((i) => `${i.toString(36)} `),
      word: 'x'.repeat(3_000_000),
    };
    const projectId = await projectWith('en', odd);
    for (const round of ['on the fly', 'from the vector']) {
      assert.deepEqual((await typesOf(projectId, 'apple')).sort(), ['hosts', 'hyphens', 'short'], round);
      await indexAll();
    }
    const text = Array.from({ length: 200_000 }, (_, i) => `word${i}`).join(' ');
    const { rows } = await owner.query("select jeex.search_vector('en', $1, 10000000)::text as vector", [text]);
    assert.equal(rows[0].vector, '');
  });

  describe('in the background', () => {
    it('takes as many as it is told, is done by one at a time, and leaves nothing to do', async () => {
      const projectId = await projectWith('en', { a: 'apple', b: 'apple', c: 'apple' });
      await indexAll();
      for (const documentType of ['a', 'b'])
        await documents.appendVersion({ projectId, documentType, content: 'pear' });
      await Promise.all([db.run(indexHeads, { most: 50 }), db.run(indexHeads, { most: 50 })]);
      await indexAll();
      assert.equal(first(await db.run(indexHeads, { most: 50 }))?.indexed, 0);
      const { rows } = await owner.query(
        'select document_type, search::text, search_version from jeex.documents where project_id = $1 order by 1',
        [projectId],
      );
      assert.deepEqual(rows, [
        { document_type: 'a', search: "'pear':1", search_version: 2 },
        { document_type: 'b', search: "'pear':1", search_version: 2 },
        { document_type: 'c', search: "'appl':1", search_version: 1 },
      ]);
    });

    it('waits for nobody who writes the document', async () => {
      const projectId = await projectWith('en', { idea: 'apple' });
      await owner.query('begin');
      try {
        await owner.query('select from jeex.projects where id = $1 for update', [projectId]);
        await owner.query('select from jeex.documents where project_id = $1 for update', [projectId]);
        await db.run(indexHeads, { most: 50 });
      } finally {
        await owner.query('rollback');
      }
      assert.equal((await projects.getProject({ id: projectId })).project?.id, projectId);
      await indexAll();
    });
  });
});
