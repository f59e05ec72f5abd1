import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { createDatabase } from '../src/db/pool.ts';
import { listExports } from '../src/exports/sql.ts';
import { type Export, ExportStatus } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { changeKinds } from './support/executions.ts';
import { append, completedExport, expire, FILE, lapse, newExport, sha256, startedExport } from './support/exports.ts';
import { connectAs, useOwner } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { exports, documents, projects } = service;
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);

describe('creating an export', () => {
  it('fixes the heads by type, with the revision they are of, and counts', async () => {
    const { projectId, viewer, editor } = await newProject(service);
    await append(service, projectId, 'plan', { actor: editor });
    const idea = await append(service, projectId, 'idea', { actor: editor });
    const plan = await append(service, projectId, 'plan', { actor: editor });
    const before = await projects.getProject({ id: projectId });
    const correlationId = randomUUID();
    const { export: made } = await exports.createExport({ projectId }, { actor: viewer, correlationId });
    assert.deepEqual(
      made?.manifest?.entries.map(({ documentType, version, contentSha256, sizeBytes }) => [
        documentType,
        version,
        contentSha256,
        sizeBytes,
      ]),
      [
        ['idea', 1, sha256(idea), BigInt(Buffer.byteLength(idea))],
        ['plan', 2, sha256(plan), BigInt(Buffer.byteLength(plan))],
      ],
    );
    assert.equal(made?.status, ExportStatus.PENDING);
    assert.equal(made?.projectRevision, before.project?.revision);
    assert.deepEqual([made?.createdBy, made?.correlationId, made?.downloadCount], [viewer, correlationId, 0n]);
    assert.equal(lifetime(made), 24n * 3600n);
    assert.equal((await projects.getProjectUsage({ projectId })).usage?.exports, 1n);
    assert.equal(
      (await projects.getProject({ id: projectId })).project?.revision,
      (before.project?.revision ?? 0n) + 1n,
    );
    assert.equal((await changeKinds(owner, projectId)).at(-1), 'EXPORT_CREATED');
    const got = await exports.getExport({ projectId, id: made?.id ?? '' }, { actor: viewer });
    assert.deepEqual(got.export, made);
  });

  it('takes the documents it names, and refuses one that is not there by its place', async () => {
    const { projectId, viewer } = await newProject(service);
    for (const type of ['a', 'b', 'c']) await append(service, projectId, type);
    const asked = { projectId, documentTypes: ['c', 'a', 'c'] };
    const { export: made } = await exports.createExport(asked, { actor: viewer });
    assert.deepEqual(
      made?.manifest?.entries.map(({ documentType }) => documentType),
      ['a', 'c'],
    );
    await assert.rejects(exports.createExport({ projectId, documentTypes: ['a', 'x', 'y'] }), {
      reason: 'DOCUMENT_NOT_FOUND',
      fields: ['document_types[1]'],
    });
    assert.equal((await projects.getProjectUsage({ projectId })).usage?.exports, 1n);
  });

  it('lives as long as it says: from a microsecond to 30 days', async () => {
    const { projectId } = await newProject(service);
    const month = { seconds: 2_592_000n };
    const { export: long } = await exports.createExport({ projectId, ttl: month });
    assert.equal(lifetime(long), month.seconds);
    assert.deepEqual(long?.manifest?.entries, []);
    const { export: short } = await exports.createExport({ projectId, ttl: { nanos: 1 } });
    assert.equal((await exports.getExport({ projectId, id: short?.id ?? '' })).export?.status, ExportStatus.EXPIRED);
    for (const ttl of [{}, { seconds: -1n }, { seconds: 2_592_000n, nanos: 1 }]) {
      await assert.rejects(exports.createExport({ projectId, ttl }), { reason: 'INVALID_FIELD', fields: ['ttl'] });
    }
  });

  it('is for members', async () => {
    const { projectId, stranger, viewer } = await newProject(service);
    await assert.rejects(exports.createExport({ projectId }, { actor: stranger }), { reason: 'PROJECT_NOT_FOUND' });
    for (const call of [
      () => exports.claimExport({}, { actor: viewer }),
      () => exports.startExport({ projectId, id: projectId }, { actor: viewer }),
    ]) {
      await assert.rejects(call, { reason: 'SCOPE_REQUIRED' });
    }
  });
});

const lifetime = (made: Export | undefined): bigint =>
  (made?.expireTime?.seconds ?? 0n) - (made?.createTime?.seconds ?? 0n);

describe('the lease of an export', () => {
  it('leads from PENDING over PROCESSING to COMPLETED, and each step is a change with a new etag', async () => {
    const { projectId } = await newProject(service);
    const { id, etag } = await newExport(service, projectId);
    const started = await exports.startExport({ projectId, id });
    assert.equal(started.export?.status, ExportStatus.PROCESSING);
    await assert.rejects(exports.startExport({ projectId, id }), {
      reason: 'ILLEGAL_TRANSITION',
      metadata: { from: 'PROCESSING', to: 'PROCESSING', outcome: 'not_applied' },
    });
    const done = await exports.completeExport({ projectId, id, leaseToken: started.leaseToken, ...FILE });
    assert.deepEqual(
      [done.export?.status, done.export?.filePath, done.export?.fileSizeBytes, done.export?.fileSha256],
      [ExportStatus.COMPLETED, FILE.filePath, FILE.fileSizeBytes, FILE.fileSha256],
    );
    assert.ok(done.export?.completeTime);
    assert.equal(new Set([etag, started.export?.etag, done.export?.etag]).size, 3);
    assert.deepEqual((await changeKinds(owner, projectId)).slice(-3), [
      'EXPORT_CREATED',
      'EXPORT_STARTED',
      'EXPORT_COMPLETED',
    ]);
    const again = { projectId, id, leaseToken: started.leaseToken };
    await assert.rejects(exports.failExport(again), {
      reason: 'ILLEGAL_TRANSITION',
      metadata: { from: 'COMPLETED', to: 'FAILED', outcome: 'not_applied' },
    });
  });

  it('ends as FAILED with the error', async () => {
    const { projectId } = await newProject(service);
    const started = await startedExport(service, projectId);
    const { export: failed } = await exports.failExport({ ...started, errorMessage: 'disk full' });
    assert.deepEqual([failed?.status, failed?.errorMessage], [ExportStatus.FAILED, 'disk full']);
    assert.equal((await changeKinds(owner, projectId)).at(-1), 'EXPORT_FAILED');
  });

  it('is lost with a wrong token, and when its time is over, also before anything noticed', async () => {
    const { projectId } = await newProject(service);
    const started = await startedExport(service, projectId);
    for (const leaseToken of [randomUUID(), 'no token at all']) {
      await assert.rejects(exports.completeExport({ ...started, ...FILE, leaseToken }), { reason: 'LEASE_LOST' });
      await assert.rejects(exports.failExport({ ...started, leaseToken }), { reason: 'LEASE_LOST' });
    }
    const { etag } = (await exports.getExport(started)).export ?? {};
    await lapse(owner, started.id);
    await assert.rejects(exports.completeExport({ ...started, ...FILE }), { reason: 'LEASE_LOST' });
    const seen = (await exports.getExport(started)).export;
    assert.equal(seen?.status, ExportStatus.PENDING);
    assert.notEqual(seen?.etag, etag);
    const again = await exports.startExport(started);
    assert.equal(again.export?.status, ExportStatus.PROCESSING);
    assert.notEqual(again.leaseToken, started.leaseToken);
    await assert.rejects(exports.completeExport({ ...started, ...FILE }), { reason: 'LEASE_LOST' });
    assert.deepEqual((await changeKinds(owner, projectId)).slice(-3), [
      'EXPORT_STARTED',
      'EXPORT_RETURNED',
      'EXPORT_STARTED',
    ]);
    await exports.completeExport({ ...started, ...FILE, leaseToken: again.leaseToken });
  });

  it('goes back to PENDING by itself, where the old token is lost and a first one never was', async () => {
    const { projectId } = await newProject(service);
    const never = await newExport(service, projectId);
    await assert.rejects(exports.failExport({ projectId, id: never.id, leaseToken: randomUUID() }), {
      reason: 'ILLEGAL_TRANSITION',
      metadata: { from: 'PENDING', to: 'FAILED', outcome: 'not_applied' },
    });
    const started = await startedExport(service, projectId);
    await lapse(owner, started.id);
    await admin.query('select * from sweep(100)');
    assert.equal((await changeKinds(owner, projectId)).at(-1), 'EXPORT_RETURNED');
    await assert.rejects(exports.failExport(started), { reason: 'LEASE_LOST' });
  });
});

describe('claiming exports', () => {
  it('gives each to one of many workers, the oldest first, and nothing when none waits', async () => {
    await owner.query(
      `update exports set create_time = create_time - interval '3 days', expire_time = create_time - interval '2 days'`,
    );
    const none = await exports.claimExport({});
    assert.deepEqual([none.export, none.leaseToken], [undefined, '']);
    const made: string[] = [];
    const ids = [await newProject(service), await newProject(service), await newProject(service)];
    for (let i = 0; i < 30; i++) {
      made.push((await newExport(service, ids[i % 3]?.projectId ?? '')).id);
    }
    assert.equal((await exports.claimExport({})).export?.id, made[0]);
    const claims = await Promise.all(Array.from({ length: 50 }, () => exports.claimExport({})));
    const claimed = claims.flatMap(({ export: each }) => each?.id ?? []);
    assert.equal(new Set(claimed).size, claimed.length, 'two workers got the same export');
    for (let more = await exports.claimExport({}); more.export; more = await exports.claimExport({})) {
      claimed.push(more.export.id);
    }
    assert.deepEqual(claimed.sort(), made.slice(1).sort());
  });

  it('passes over what expired and what a deleted project has, and takes what lost its lease', async () => {
    const [expired, deleted, lost] = [await newProject(service), await newProject(service), await newProject(service)];
    await expire(owner, (await newExport(service, expired.projectId)).id);
    await newExport(service, deleted.projectId);
    await projects.deleteProject({ id: deleted.projectId });
    const started = await startedExport(service, lost.projectId);
    await lapse(owner, started.id);
    const { export: first, leaseToken } = await exports.claimExport({ leaseSeconds: 5 });
    assert.equal(first?.id, started.id);
    assert.notEqual(leaseToken, started.leaseToken);
    assert.equal((await exports.claimExport({})).export, undefined);
  });
});

describe('an export past its expire_time', () => {
  it('is EXPIRED whatever it was, and nothing is done with it any more', async () => {
    const { projectId, viewer } = await newProject(service);
    const pending = await newExport(service, projectId);
    const processing = await startedExport(service, projectId);
    const completed = await completedExport(service, projectId);
    for (const { id } of [pending, processing, completed]) {
      const { etag } = (await exports.getExport({ projectId, id })).export ?? {};
      await expire(owner, id);
      const seen = (await exports.getExport({ projectId, id }, { actor: viewer })).export;
      assert.equal(seen?.status, ExportStatus.EXPIRED);
      assert.notEqual(seen?.etag, etag);
      const { leaseToken } = processing;
      for (const call of [
        () => exports.startExport({ projectId, id }),
        () => exports.completeExport({ projectId, id, leaseToken, ...FILE }),
        () => exports.failExport({ projectId, id, leaseToken }),
        () => exports.recordDownload({ projectId, id }, { actor: viewer }),
        () => exports.streamExportContent({ projectId, id }, { actor: viewer })[Symbol.asyncIterator]().next(),
      ]) {
        await assert.rejects(call, { reason: 'EXPORT_EXPIRED' });
      }
    }
    const listed = await exports.listExports({ projectId });
    assert.ok(listed.exports.every(({ status }) => status === ExportStatus.EXPIRED));
  });
});

describe('listing exports', () => {
  it('goes newest first through all pages', async () => {
    const { projectId, viewer, stranger } = await newProject(service);
    const made: string[] = [];
    for (let i = 0; i < 7; i++) made.unshift((await newExport(service, projectId)).id);
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = await exports.listExports({ projectId, pageSize: 3, pageToken }, { actor: viewer });
      seen.push(...page.exports.map(({ id }) => id));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    assert.deepEqual(seen, made);
    await assert.rejects(exports.listExports({ projectId }, { actor: stranger }), { reason: 'PROJECT_NOT_FOUND' });
    await assert.rejects(exports.getExport({ projectId, id: randomUUID() }), { reason: 'EXPORT_NOT_FOUND' });
  });

  it('ends its pages at 3 MiB, whatever the manifests, and leaves none out', async (t) => {
    const { projectId } = await newProject(service);
    for (let from = 0; from < 1000; from += 100) {
      const entries = Array.from({ length: 100 }, (_, i) => ({
        documentType: `d${'x'.repeat(44)}.${String(from + i).padStart(4, '0')}`,
        content: `${i}`,
      }));
      await documents.batchAppendVersions({ projectId, entries });
    }
    const made: string[] = [];
    for (let i = 0; i < 40; i++) made.unshift((await newExport(service, projectId)).id);
    const seen: string[] = [];
    let pages = 0;
    let pageToken = '';
    do {
      const page = await exports.listExports({ projectId, pageSize: 1000, pageToken });
      seen.push(...page.exports.map(({ id }) => id));
      assert.ok(page.exports.every(({ manifest }) => manifest?.entries.length === 1000));
      pageToken = page.nextPageToken;
      pages++;
    } while (pageToken !== '');
    assert.deepEqual(seen, made);
    assert.ok(pages > 1);
    // The database stops there too: a page never reads what it will not answer.
    const pool = await createDatabase({ url: service.db.appUrl, size: 1 });
    t.after(() => pool.end());
    const read = await pool.run(listExports, { project: projectId, actor: null, before: null, most: 1001 });
    assert.ok(read.length < made.length);
  });
});

describe('counting downloads', () => {
  it('is exact when 50 come at once, and each is a change', async () => {
    const { projectId, viewer } = await newProject(service);
    const completed = await completedExport(service, projectId);
    await Promise.all(Array.from({ length: 50 }, () => exports.recordDownload(completed, { actor: viewer })));
    assert.equal((await exports.getExport(completed)).export?.downloadCount, 50n);
    const kinds = await changeKinds(owner, projectId);
    assert.equal(kinds.filter((kind) => kind === 'EXPORT_DOWNLOADED').length, 50);
  });

  it('is refused until the export is complete', async () => {
    const { projectId } = await newProject(service);
    const started = await startedExport(service, projectId);
    await assert.rejects(exports.recordDownload(started), { reason: 'EXPORT_NOT_READY' });
    await exports.failExport(started);
    await assert.rejects(exports.recordDownload(started), { reason: 'EXPORT_NOT_READY' });
    assert.equal((await exports.getExport(started)).export?.downloadCount, 0n);
  });
});
