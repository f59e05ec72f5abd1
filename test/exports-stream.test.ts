import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { append, newExport, sha256 } from './support/exports.ts';
import { connectAs } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { exports, documents, projects } = service;
const admin = await connectAs(service.db.adminUrl);

/** Everything the stream answers. */
const contents = async (projectId: string, id: string, actor?: string) => {
  const found = [];
  for await (const { version } of exports.streamExportContent({ projectId, id }, { actor })) found.push(version);
  return found;
};

describe('streaming an export', () => {
  it('stays byte-identical to its hashes while 20 appends go on', async () => {
    const { projectId, viewer, editor } = await newProject(service);
    const expected = new Map<string, string>();
    for (const type of ['a', 'b', 'c', 'd', 'e', 'f']) expected.set(type, await append(service, projectId, type));
    const made = await newExport(service, projectId, { actor: viewer });
    let appends: Promise<unknown> | undefined;
    const seen: string[] = [];
    for await (const { version } of exports.streamExportContent({ projectId, id: made.id }, { actor: viewer })) {
      appends ??= Promise.all(
        Array.from({ length: 20 }, (_, i) => append(service, projectId, i % 2 ? 'f' : 'b', { actor: editor })),
      );
      if (seen.length === 2) await appends;
      const entry = made.manifest?.entries[seen.length];
      assert.equal(version?.content, expected.get(version?.documentType ?? ''));
      assert.equal(sha256(version?.content ?? ''), entry?.contentSha256);
      assert.deepEqual([version?.documentType, version?.version], [entry?.documentType, entry?.version]);
      seen.push(version?.documentType ?? '');
    }
    assert.deepEqual(seen, [...expected.keys()]);
    assert.equal((await documents.getVersion({ projectId, documentType: 'f' })).version?.version, 11);
  });

  it('streams the largest contents to a stock client that reads slowly', async () => {
    const { projectId } = await newProject(service);
    const large = 'ä'.repeat(3 * 512 * 1024);
    for (let i = 0; i < 4; i++) await documents.appendVersion({ projectId, documentType: `d${i}`, content: large });
    const { id } = await newExport(service, projectId);
    let count = 0;
    for await (const { version } of exports.streamExportContent({ projectId, id })) {
      assert.equal(version?.content.length, large.length);
      count++;
      await exports.getExport({ projectId, id });
    }
    assert.equal(count, 4);
  });

  it('ends when the actor loses access, and when a body is not what its hash says', async () => {
    const { projectId, viewer } = await newProject(service);
    // More than the door sends ahead of a reader who has stopped.
    for (let i = 0; i < 12; i++) {
      await documents.appendVersion({ projectId, documentType: `d${i}`, content: `${i}`.repeat(1024 * 1024) });
    }
    const { id } = await newExport(service, projectId);
    await assert.rejects(
      async () => {
        for await (const { version } of exports.streamExportContent({ projectId, id }, { actor: viewer })) {
          if (version?.documentType === 'd0') await projects.removeMember({ projectId, userId: viewer });
        }
      },
      { reason: 'PROJECT_NOT_FOUND' },
    );
    await admin.query(
      `update document_bodies set content = 'x' || substr(content, 2)
       where sha256 = decode($1, 'hex') and project_id = $2`,
      [sha256('0'.repeat(1024 * 1024)), projectId],
    );
    await assert.rejects(contents(projectId, id), { reason: 'INTERNAL' });
  });

  it('is for members, and only of an export that is there', async () => {
    const { projectId, stranger } = await newProject(service);
    const { id } = await newExport(service, projectId);
    assert.deepEqual(await contents(projectId, id), []);
    await assert.rejects(contents(projectId, id, stranger), { reason: 'PROJECT_NOT_FOUND' });
    await assert.rejects(contents(projectId, randomUUID()), { reason: 'EXPORT_NOT_FOUND' });
  });
});
