import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createDatabase } from '../src/db/pool.ts';
import { getVersion, listDocuments, listVersions } from '../src/documents/sql.ts';
import { DiffLineKind, View } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { documents, projects } = service;

const MEBIBYTE = 1024 * 1024;

/** A project whose document of each type has these contents, oldest first. */
const projectWith = async (types: Readonly<Record<string, readonly string[]>>): Promise<string> => {
  const { projectId } = await newProject(service);
  for (const [documentType, contents] of Object.entries(types)) {
    for (const content of contents) await documents.appendVersion({ projectId, documentType, content });
  }
  return projectId;
};

/** Every item of a list, and the size of each page. */
const allPages = async <T>(page: (pageToken: string) => Promise<{ items: T[]; nextPageToken: string }>) => {
  const items: T[] = [];
  const sizes: number[] = [];
  let pageToken = '';
  do {
    const answer = await page(pageToken);
    items.push(...answer.items);
    sizes.push(answer.items.length);
    pageToken = answer.nextPageToken;
  } while (pageToken !== '');
  return { items, sizes };
};

describe('reading a version', () => {
  it('answers the head or a given version, with content unless asked without', async () => {
    const projectId = await projectWith({ idea: ['one', 'two'] });
    const read = async (request: object) => {
      const { version } = await documents.getVersion({ projectId, documentType: 'idea', ...request });
      return [version?.version, version?.content];
    };
    assert.deepEqual(await read({}), [2, 'two']);
    assert.deepEqual(await read({ version: 1 }), [1, 'one']);
    assert.deepEqual(await read({ version: 1, view: View.BASIC }), [1, '']);
    assert.deepEqual(await read({ version: 2, view: View.FULL }), [2, 'two']);
  });

  it('tells a document that is not there from a version that is not', async () => {
    const projectId = await projectWith({ idea: ['one'] });
    await assert.rejects(documents.getVersion({ projectId, documentType: 'plan' }), { reason: 'DOCUMENT_NOT_FOUND' });
    await assert.rejects(documents.getVersion({ projectId, documentType: 'idea', version: 2 }), {
      reason: 'VERSION_NOT_FOUND',
    });
    await assert.rejects(documents.getVersion({ projectId, documentType: 'idea', version: -1 }), {
      reason: 'INVALID_FIELD',
    });
  });

  it('at a revision sees the project as it was', async () => {
    const { projectId } = await newProject(service);
    const append = async (documentType: string, content: string) =>
      (await documents.appendVersion({ projectId, documentType, content })).version?.projectRevision ?? 0n;
    const first = await append('idea', 'one');
    const second = await append('plan', 'a');
    const third = await append('idea', 'two');
    const at = async (atRevision: bigint, version = 0) =>
      (await documents.getVersion({ projectId, documentType: 'idea', version, atRevision })).version?.content;
    assert.deepEqual([await at(first), await at(second), await at(third), await at(0n)], ['one', 'one', 'two', 'two']);
    assert.equal(await at(second, 1), 'one');
    await assert.rejects(at(second, 2), { reason: 'VERSION_NOT_FOUND' });
    await assert.rejects(at(first - 1n), { reason: 'DOCUMENT_NOT_FOUND' });
    await assert.rejects(at(first - 1n, 1), { reason: 'DOCUMENT_NOT_FOUND' });
    await assert.rejects(at(third + 1n), { reason: 'INVALID_FIELD', fields: ['at_revision'] });

    const list = async (atRevision: bigint) =>
      (await documents.listDocuments({ projectId, atRevision })).documents.map((v) => [v.documentType, v.version]);
    assert.deepEqual(await list(first - 1n), []);
    assert.deepEqual(await list(first), [['idea', 1]]);
    assert.deepEqual(await list(second), [
      ['idea', 1],
      ['plan', 1],
    ]);
    assert.deepEqual(await list(0n), [
      ['idea', 2],
      ['plan', 1],
    ]);
    await assert.rejects(list(third + 1n), { reason: 'INVALID_FIELD', fields: ['at_revision'] });
  });

  it('in a batch keeps the order of the names and leaves the missing out', async () => {
    const projectId = await projectWith({ idea: ['one', 'two'], plan: ['a'] });
    const names = [
      { documentType: 'plan', version: 0 },
      { documentType: 'specs', version: 1 },
      { documentType: 'idea', version: 1 },
      { documentType: 'idea', version: 9 },
      { documentType: 'idea', version: 0 },
      { documentType: 'plan', version: 1 },
    ];
    const { versions } = await documents.batchGetVersions({ projectId, names });
    assert.deepEqual(
      versions.map((v) => [v.documentType, v.version, v.content]),
      [
        ['plan', 1, ''],
        ['idea', 1, ''],
        ['idea', 2, ''],
        ['plan', 1, ''],
      ],
    );
    const full = await documents.batchGetVersions({ projectId, names, view: View.FULL });
    assert.deepEqual(
      full.versions.map((v) => v.content),
      ['a', 'one', 'two', 'a'],
    );
  });
});

describe('lists', () => {
  it('of documents and of versions go on where they ended, in order', async () => {
    const types = ['a', 'a.b', 'a_b', 'b', 'b-1', 'c', 'idea'];
    const projectId = await projectWith(Object.fromEntries(types.map((type) => [type, ['1', '2', '3', '4', '5']])));
    for (const pageSize of [1, 3, 7, 1000]) {
      const heads = await allPages(async (pageToken) => {
        const answer = await documents.listDocuments({ projectId, pageSize, pageToken });
        return { items: answer.documents, ...answer };
      });
      assert.deepEqual(
        heads.items.map((v) => v.documentType),
        [...types].sort(),
      );
      assert.ok(heads.items.every((v) => v.version === 5 && v.content === ''));
      const versions = await allPages(async (pageToken) => {
        const answer = await documents.listVersions({ projectId, documentType: 'idea', pageSize, pageToken });
        return { items: answer.versions, ...answer };
      });
      assert.deepEqual(
        versions.items.map((v) => v.version),
        [5, 4, 3, 2, 1],
      );
    }
  });

  it('are empty without documents, and refuse a document that is not there or a token of another list', async () => {
    const { projectId } = await newProject(service);
    assert.deepEqual((await documents.listDocuments({ projectId })).documents, []);
    await assert.rejects(documents.listVersions({ projectId, documentType: 'idea' }), { reason: 'DOCUMENT_NOT_FOUND' });
    const other = await projectWith({ idea: ['1', '2'], plan: ['1', '2'] });
    const { nextPageToken: pageToken } = await documents.listVersions({
      projectId: other,
      documentType: 'idea',
      pageSize: 1,
    });
    assert.notEqual(pageToken, '');
    await assert.rejects(documents.listVersions({ projectId: other, documentType: 'plan', pageToken }), {
      reason: 'INVALID_PAGE_TOKEN',
    });
  });

  it('with content end their pages early, skip nothing, and read no more than a page', async () => {
    const sizes = [3 * MEBIBYTE, 1, 2 * MEBIBYTE, 2 * MEBIBYTE, 900_000, 900_000, 900_000, 900_000, 3 * MEBIBYTE];
    const { projectId } = await newProject(service);
    const content = (i: number) => String.fromCharCode(97 + i).repeat(sizes[i] ?? 0);
    for (const i of sizes.keys()) {
      await documents.appendVersion({ projectId, documentType: `doc${i}`, content: content(i) });
      await documents.appendVersion({ projectId, documentType: 'versions', content: content(i) });
    }
    const versions = await allPages(async (pageToken) => {
      const answer = await documents.listVersions({ projectId, documentType: 'versions', view: View.FULL, pageToken });
      return { items: answer.versions, ...answer };
    });
    const heads = await allPages(async (pageToken) => {
      const answer = await documents.listDocuments({ projectId, view: View.FULL, pageToken });
      return { items: answer.documents, ...answer };
    });
    assert.deepEqual(versions.sizes, [1, 3, 2, 2, 1]);
    assert.deepEqual(heads.sizes, [1, 2, 2, 3, 1, 1]);
    for (const i of sizes.keys()) {
      assert.ok(versions.items[sizes.length - 1 - i]?.content === content(i));
      assert.ok(heads.items[i]?.content === content(i));
    }
    const names = sizes.map((_, i) => ({ documentType: `doc${i}`, version: 0 }));
    const batch = await documents.batchGetVersions({ projectId, names: names.slice(1), view: View.FULL });
    assert.deepEqual(
      batch.versions.map((v) => v.documentType),
      ['doc1', 'doc2'],
    );

    const db = await createDatabase({ url: service.db.appUrl, size: 1 });
    try {
      const scope = { project: projectId, actor: null, full: true, most: 1001 };
      const rows = [
        await db.run(listVersions, { ...scope, document_type: 'versions', before: null }),
        await db.run(listDocuments, { ...scope, after: 'doc0', at_revision: 0n }),
      ];
      for (const found of rows) {
        const bytes = found.reduce((sum, row) => sum + ('content' in row ? (row.content ?? '').length : 0), 0);
        assert.ok(bytes > 0 && bytes <= 3 * MEBIBYTE, `${bytes} bytes were read`);
      }
      const basic = {
        project: projectId,
        actor: null,
        document_type: 'doc0',
        version: 0,
        at_revision: 0n,
        full: false,
      };
      const [row] = await db.run(getVersion, basic);
      assert.equal(row && 'content' in row && row.content, null);
    } finally {
      await db.end();
    }
  });

  it('without content fit a message too, however large the metadata', async () => {
    const { projectId } = await newProject(service);
    const metadata = { n: Array(3600).fill(1) };
    for (let round = 0; round < 4; round++) {
      const entries = Array.from({ length: 50 }, () => ({ documentType: 'idea', content: 'x', metadata }));
      await documents.batchAppendVersions({ projectId, entries });
    }
    const versions = await allPages(async (pageToken) => {
      const answer = await documents.listVersions({ projectId, documentType: 'idea', pageSize: 1000, pageToken });
      return { items: answer.versions, ...answer };
    });
    assert.deepEqual(
      versions.items.map((v) => v.version),
      Array.from({ length: 200 }, (_, i) => 200 - i),
    );
    assert.ok(versions.sizes.length > 2);
  });
});

describe('the difference of two versions', () => {
  it('is answered as hunks, and none for equal contents', async () => {
    const projectId = await projectWith({ idea: ['a\nb\nc\n', 'a\nB\nc\n', 'a\nb\nc\n'] });
    const diff = (request: object) => documents.diffVersions({ projectId, documentType: 'idea', ...request });
    const { CONTEXT, ADDED, REMOVED } = DiffLineKind;
    const { hunks, truncated } = await diff({ fromVersion: 1, toVersion: 2 });
    assert.equal(truncated, false);
    assert.deepEqual(
      hunks.map((h) => [h.fromStart, h.fromLines, h.toStart, h.toLines, h.lines.map((l) => [l.kind, l.text])]),
      [
        [
          1,
          3,
          1,
          3,
          [
            [CONTEXT, 'a\n'],
            [REMOVED, 'b\n'],
            [ADDED, 'B\n'],
            [CONTEXT, 'c\n'],
          ],
        ],
      ],
    );
    const bare = await diff({ fromVersion: 2, toVersion: 1, contextLines: 0 });
    assert.deepEqual(
      bare.hunks.map((h) => [h.fromStart, h.fromLines, h.toStart, h.toLines, h.lines.length]),
      [[2, 1, 2, 1, 2]],
    );
    assert.deepEqual((await diff({ fromVersion: 1, toVersion: 3 })).hunks, []);
    assert.deepEqual((await diff({ fromVersion: 2, toVersion: 2 })).hunks, []);
    await assert.rejects(diff({ fromVersion: 1, toVersion: 4 }), {
      reason: 'VERSION_NOT_FOUND',
      fields: ['to_version'],
    });
    await assert.rejects(diff({ fromVersion: 4, toVersion: 1 }), {
      reason: 'VERSION_NOT_FOUND',
      fields: ['from_version'],
    });
    await assert.rejects(diff({ fromVersion: 1, toVersion: 2, contextLines: -1 }), { reason: 'INVALID_FIELD' });
    await assert.rejects(diff({ documentType: 'plan', fromVersion: 1, toVersion: 2 }), {
      reason: 'DOCUMENT_NOT_FOUND',
    });
  });

  it('of the largest contents fits a message and says that it is cut', async () => {
    const lines = (word: string) => `${word} ${'x'.repeat(100)}\n`.repeat(29_000);
    const projectId = await projectWith({
      idea: ['a'.repeat(3 * MEBIBYTE), 'b'.repeat(3 * MEBIBYTE), lines('c'), lines('d')],
    });
    for (const [fromVersion, toVersion] of [
      [1, 2],
      [2, 3],
      [3, 4],
    ]) {
      const { hunks, truncated } = await documents.diffVersions({
        projectId,
        documentType: 'idea',
        fromVersion,
        toVersion,
      });
      assert.equal(truncated, true);
      assert.ok(hunks.length > 0);
    }
    const kept = await documents.getVersion({ projectId, documentType: 'idea', version: 1 });
    const [hunk] = (await documents.diffVersions({ projectId, documentType: 'idea', fromVersion: 1, toVersion: 2 }))
      .hunks;
    assert.ok(hunk?.lines[0]?.text === kept.version?.content);
  });
});

describe('reads of a deleted project', () => {
  it('answer as if it were not there, or to its owners that it is deleted', async () => {
    const { projectId, owner, viewer } = await newProject(service);
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'x' });
    await projects.deleteProject({ id: projectId });
    const request = { projectId, documentType: 'idea' };
    await assert.rejects(documents.getVersion(request, { actor: viewer }), { reason: 'PROJECT_NOT_FOUND' });
    await assert.rejects(documents.getVersion(request, { actor: owner }), { reason: 'PROJECT_DELETED' });
    await assert.rejects(documents.searchDocuments({ projectId, query: 'x' }, { actor: owner }), {
      reason: 'PROJECT_DELETED',
    });
  });
});
