import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { Client } from 'pg';
import { Visibility } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import type { CallError } from './support/client.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { documents, projects } = service;

const MEBIBYTE = 1024 * 1024;
const MAX_CONTENT = 3 * MEBIBYTE;
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const revisionOf = async (projectId: string) => (await projects.getProject({ id: projectId })).project?.revision ?? -1n;
const usageOf = async (projectId: string) => (await projects.getProjectUsage({ projectId })).usage;

describe('appending a version', () => {
  it('answers all about it but the content, which the caller has', async () => {
    const { projectId, editor } = await newProject(service);
    const correlationId = randomUUID();
    const request = { projectId, documentType: 'idea', content: 'é\n', reason: 'first', metadata: { a: [1, null] } };
    const { version } = await documents.appendVersion(
      { ...request, readabilityScore: 0, grammarScore: 99.5 },
      { actor: editor, correlationId },
    );
    assert.ok(version?.id && version.createTime);
    assert.deepEqual(
      { ...version, id: '', createTime: undefined, $typeName: undefined },
      {
        $typeName: undefined,
        id: '',
        projectId,
        documentType: 'idea',
        version: 1,
        content: '',
        contentSha256: sha256('é\n'),
        sizeBytes: 3n,
        metadata: { a: [1, null] },
        reason: 'first',
        restoredFromVersion: 0,
        readabilityScore: 0,
        grammarScore: 99.5,
        createdBy: editor,
        caller: 'anonymous',
        correlationId,
        executionId: '',
        createTime: undefined,
        projectRevision: await revisionOf(projectId),
      },
    );
    const { version: read } = await documents.getVersion({ projectId, documentType: 'idea' });
    assert.deepEqual({ ...read, content: '' }, { ...version });
    assert.equal(read?.content, 'é\n');
  });

  it('gives 50 writers at once the versions 1 to 50, without a gap or a failure', async () => {
    const { projectId, editor } = await newProject(service);
    const before = await revisionOf(projectId);
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        documents.appendVersion({ projectId, documentType: 'idea', content: `text ${i}` }, { actor: editor }),
      ),
    );
    const sorted = (values: (number | undefined)[]) => values.sort((a, b) => Number(a) - Number(b));
    const expected = Array.from({ length: 50 }, (_, i) => i + 1);
    assert.deepEqual(sorted(answers.map(({ version }) => version?.version)), expected);
    assert.deepEqual(sorted(answers.map(({ version }) => Number((version?.projectRevision ?? 0n) - before))), expected);
    assert.equal(await revisionOf(projectId), before + 50n);
    const usage = await usageOf(projectId);
    assert.deepEqual([usage?.documents, usage?.versions], [1n, 50n]);
  });

  it('lets one of 50 writers win who have all seen no version, and tells the others the current one', async () => {
    const { projectId, editor } = await newProject(service);
    const answers = await Promise.allSettled(
      Array.from({ length: 50 }, (_, i) =>
        documents.appendVersion(
          { projectId, documentType: 'idea', content: `text ${i}`, expectedVersion: 0 },
          { actor: editor },
        ),
      ),
    );
    const lost = answers.filter((answer) => answer.status === 'rejected').map(({ reason }) => reason as CallError);
    assert.equal(lost.length, 49);
    for (const { reason, metadata } of lost) {
      assert.equal(reason, 'VERSION_CONFLICT');
      assert.equal(metadata.current_version, '1');
      assert.equal(metadata.outcome, 'not_applied');
    }
    assert.equal((await usageOf(projectId))?.versions, 1n);
  });

  it('keeps every content byte for byte', async () => {
    const { projectId } = await newProject(service);
    const contents = [
      '',
      '\ufeffwith a mark',
      'a\r\nb\rc\n\n \t ',
      'e\u0301 and é, Å and Å, ﬁ, İı',
      '😀👩‍👩‍👧‍👦🏳️‍🌈 \u{10ffff}\uffff\ufffe\ufffd',
      '\u0001\u0002\u001f\u007f\u0085\u2028\u2029\u200b\u202e',
      '{"a": "\\"}',
      '"quoted", {array}, NULL, \\x00, $1, \'; drop table projects; --',
    ];
    await documents.batchAppendVersions({
      projectId,
      entries: contents.map((content) => ({ documentType: 'odd', content })),
    });
    for (const [i, content] of contents.entries()) {
      const { version } = await documents.getVersion({ projectId, documentType: 'odd', version: i + 1 });
      assert.equal(version?.content, content);
      assert.equal(version.contentSha256, sha256(content));
      assert.equal(version.sizeBytes, BigInt(Buffer.byteLength(content)));
    }
    await assert.rejects(documents.appendVersion({ projectId, documentType: 'odd', content: 'a\0b' }), {
      reason: 'INVALID_FIELD',
      fields: ['content'],
    });
  });

  it('takes 3 MiB of UTF-8 and no byte more, and a stock client can read them', async () => {
    const { projectId } = await newProject(service);
    const largest = `${'é'.repeat(MAX_CONTENT / 2 - 2)}😀`;
    const metadata = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`key ${i}`, 'x'.repeat(120)]));
    await documents.appendVersion({
      projectId,
      documentType: 'idea',
      content: largest,
      reason: '€'.repeat(4000),
      metadata,
    });
    const { version } = await documents.getVersion({ projectId, documentType: 'idea' });
    assert.ok(version?.content === largest);
    await assert.rejects(documents.appendVersion({ projectId, documentType: 'idea', content: `${largest}x` }), {
      reason: 'CONTENT_TOO_LARGE',
      fields: ['content'],
    });
  });

  it('belongs to an execution of its own project, or is refused', async () => {
    const [one, other] = [await newProject(service), await newProject(service)];
    const created = await service.executions.createExecution({ projectId: other.projectId, agentType: 'writer' });
    await service.executions.createExecution({ projectId: one.projectId, agentType: 'writer' });
    for (const executionId of [randomUUID(), created.execution?.id]) {
      await assert.rejects(
        documents.appendVersion({ projectId: one.projectId, documentType: 'idea', content: 'x', executionId }),
        { reason: 'EXECUTION_NOT_FOUND' },
      );
    }
    const own = { projectId: other.projectId, documentType: 'idea', content: 'x', executionId: created.execution?.id };
    assert.equal((await documents.appendVersion(own)).version?.executionId, created.execution?.id);
  });

  it('takes an editor; whoever may not see the project finds none', async () => {
    const { projectId, owner, viewer, stranger } = await newProject(service);
    const request = { projectId, documentType: 'idea', content: 'x' };
    await assert.rejects(documents.appendVersion(request, { actor: viewer }), { reason: 'ROLE_REQUIRED' });
    await assert.rejects(documents.appendVersion(request, { actor: stranger }), { reason: 'PROJECT_NOT_FOUND' });
    await documents.appendVersion(request, { actor: owner });
    await assert.rejects(documents.getVersion(request, { actor: stranger }), { reason: 'PROJECT_NOT_FOUND' });
    const project = { id: projectId, visibility: Visibility.PUBLIC_READ };
    await projects.updateProject({ project }, { actor: owner });
    assert.equal((await documents.getVersion(request, { actor: stranger })).version?.content, 'x');
    await assert.rejects(documents.appendVersion(request, { actor: stranger }), { reason: 'ROLE_REQUIRED' });
  });

  it('stores what nobody can change or remove', async () => {
    const { projectId } = await newProject(service);
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'x' });
    const client = new Client({ connectionString: service.db.appUrl });
    await client.connect();
    try {
      for (const table of ['document_versions', 'document_bodies']) {
        await assert.rejects(client.query(`delete from ${table}`), { code: '42501' });
        await assert.rejects(client.query(`update ${table} set project_id = project_id`), { code: '42501' });
      }
    } finally {
      await client.end();
    }
  });
});

describe('appending a batch', () => {
  it('takes the next revisions in the order of its entries', async () => {
    const { projectId } = await newProject(service);
    const before = await revisionOf(projectId);
    const { versions } = await documents.batchAppendVersions({
      projectId,
      entries: [
        { documentType: 'plan', content: 'a', expectedVersion: 0 },
        { documentType: 'idea', content: 'b' },
        { documentType: 'plan', content: 'c', expectedVersion: 1 },
      ],
    });
    assert.deepEqual(
      versions.map((v) => [v.documentType, v.version, v.projectRevision - before, v.contentSha256]),
      [
        ['plan', 1, 1n, sha256('a')],
        ['idea', 1, 2n, sha256('b')],
        ['plan', 2, 3n, sha256('c')],
      ],
    );
  });

  it('writes all or nothing, and its error names the entry', async () => {
    const { projectId } = await newProject(service);
    const before = [await revisionOf(projectId), await usageOf(projectId)];
    const bad = [
      { entry: { documentType: 'idea', content: 'x', expectedVersion: 7 }, reason: 'VERSION_CONFLICT' },
      { entry: { documentType: 'idea', content: 'x', executionId: randomUUID() }, reason: 'EXECUTION_NOT_FOUND' },
    ];
    for (const { entry, reason } of bad) {
      const entries = [{ documentType: 'idea', content: 'y' }, { documentType: 'plan', content: 'z' }, entry];
      const error = (await documents.batchAppendVersions({ projectId, entries }).catch((e: unknown) => e)) as CallError;
      assert.equal(error.reason, reason);
      assert.equal(error.metadata.entry, '2');
      assert.match(error.fields[0] ?? '', /^entries\[2\]/);
      if (reason === 'VERSION_CONFLICT') assert.equal(error.metadata.current_version, '1');
    }
    assert.deepEqual([await revisionOf(projectId), await usageOf(projectId)], before);
  });

  it('is refused where a field is wrong, or where its answer would not fit a message', async () => {
    const { projectId } = await newProject(service);
    const good = { documentType: 'idea', content: 'x' };
    await assert.rejects(documents.batchAppendVersions({ projectId, entries: [] }), { reason: 'INVALID_FIELD' });
    await assert.rejects(
      documents.batchAppendVersions({ projectId, entries: [good, { ...good, documentType: 'Idea' }] }),
      { reason: 'INVALID_FIELD', fields: ['entries[1].document_type'] },
    );
    await assert.rejects(
      documents.batchAppendVersions({ projectId, entries: [good, { ...good, content: 'x'.repeat(MAX_CONTENT + 1) }] }),
      { reason: 'CONTENT_TOO_LARGE', fields: ['entries[1].content'] },
    );
    const numbers = { metadata: { n: Array(3600).fill(1) } };
    const large = Array.from({ length: 100 }, () => ({ ...good, ...numbers, reason: 'r'.repeat(1800) }));
    const exact = large.slice(0, 99);
    await assert.rejects(documents.batchAppendVersions({ projectId, entries: large }), {
      reason: 'CONTENT_TOO_LARGE',
      fields: ['entries'],
    });
    assert.equal((await documents.batchAppendVersions({ projectId, entries: exact })).versions.length, exact.length);
  });
});

describe('restoring a version', () => {
  it('appends a version with the content of an earlier one, which costs no more space', async () => {
    const { projectId, editor } = await newProject(service);
    const entries = ['one', 'two'].map((content) => ({
      documentType: 'idea',
      content,
      metadata: { content },
      readabilityScore: 50,
    }));
    await documents.batchAppendVersions({ projectId, entries });
    const before = await usageOf(projectId);
    const request = { projectId, documentType: 'idea', version: 1, reason: 'back', expectedVersion: 2 };
    const { version } = await documents.restoreVersion(request, { actor: editor });
    assert.deepEqual(
      [version?.version, version?.restoredFromVersion, version?.reason, version?.createdBy, version?.content],
      [3, 1, 'back', editor, ''],
    );
    const { version: head } = await documents.getVersion({ projectId, documentType: 'idea' });
    assert.equal(head?.content, 'one');
    assert.deepEqual([head.metadata, head.readabilityScore], [{ content: 'one' }, 50]);
    const after = await usageOf(projectId);
    assert.deepEqual([after?.versions, after?.contentBytes], [3n, before?.contentBytes]);
  });

  it('is refused for what is not there, or for a head that was not seen', async () => {
    const { projectId } = await newProject(service);
    const request = { projectId, documentType: 'idea', version: 1 };
    await assert.rejects(documents.restoreVersion(request), { reason: 'DOCUMENT_NOT_FOUND' });
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'x' });
    await assert.rejects(documents.restoreVersion({ ...request, version: 2 }), { reason: 'VERSION_NOT_FOUND' });
    await assert.rejects(documents.restoreVersion({ ...request, expectedVersion: 0 }), {
      reason: 'VERSION_CONFLICT',
      metadata: { current_version: '1', outcome: 'not_applied' },
    });
  });
});

describe('quotas', () => {
  it('hold to the byte and the row, count equal contents once, and say what is exceeded', async () => {
    const { projectId } = await newProject(service);
    const quota = { contentBytes: 10n, documents: 2n, versions: 4n };
    await projects.setProjectQuota({ projectId, quota });
    const append = (documentType: string, content: string) =>
      documents.appendVersion({ projectId, documentType, content });
    const exceeded = (name: string, limit: string, used: string) => ({
      reason: 'QUOTA_EXCEEDED',
      metadata: { quota: name, limit, used, outcome: 'not_applied' },
    });
    await append('idea', '123456');
    await append('plan', '123456');
    await assert.rejects(append('idea', '12345'), exceeded('content_bytes', '10', '6'));
    await assert.rejects(append('specs', ''), exceeded('documents', '2', '2'));
    await append('idea', '1234');
    await append('idea', '1234');
    await assert.rejects(append('idea', '1234'), exceeded('versions', '4', '4'));
    await assert.rejects(
      documents.restoreVersion({ projectId, documentType: 'idea', version: 1 }),
      exceeded('versions', '4', '4'),
    );
    const usage = await usageOf(projectId);
    assert.deepEqual([usage?.documents, usage?.versions, usage?.contentBytes], [2n, 4n, 10n]);
  });
});

describe('a request id', () => {
  it('appends once, also in parallel, and answers the same; with another request it is refused', async () => {
    const { projectId, editor } = await newProject(service);
    const request = {
      projectId,
      documentType: 'idea',
      content: 'x',
      metadata: { b: 1.5, a: 'é' },
      requestId: randomUUID(),
    };
    const append = () => documents.appendVersion(request, { actor: editor });
    const [first, ...others] = await Promise.all(Array.from({ length: 8 }, append));
    for (const other of others) assert.deepEqual(other, first);
    assert.equal((await usageOf(projectId))?.versions, 1n);
    await assert.rejects(documents.appendVersion({ ...request, content: 'y' }, { actor: editor }), {
      reason: 'REQUEST_ID_REUSED',
    });
  });

  it('covers batches and restores too', async () => {
    const { projectId, editor } = await newProject(service);
    const options = { actor: editor };
    const entries = ['one', 'two', 'three'].map((content) => ({ documentType: 'idea', content, grammarScore: 0.1 }));
    const batch = { projectId, entries, requestId: randomUUID() };
    assert.deepEqual(
      await documents.batchAppendVersions(batch, options),
      await documents.batchAppendVersions(batch, options),
    );
    const restore = { projectId, documentType: 'idea', version: 1, requestId: randomUUID() };
    assert.deepEqual(
      await documents.restoreVersion(restore, options),
      await documents.restoreVersion(restore, options),
    );
    assert.equal((await usageOf(projectId))?.versions, 4n);
  });
});
