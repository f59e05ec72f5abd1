import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { repeatedProject, rowsPerPoll } from '../src/changes/changes.ts';
import { firstBrokenLink } from '../src/demo/record.ts';
import { ChangeKind } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { allChanges } from './support/changes.ts';
import { startRun } from './support/executions.ts';
import { append, completedExport, newExport } from './support/exports.ts';
import { connectAs, useOwner } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { changes, documents, executions, projects } = service;
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);

const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const upTo = (last: number): bigint[] => times(last, (i) => BigInt(i + 1));

describe('listing changes', () => {
  it('tells every write once, in order, without a gap', async () => {
    const { projectId, viewer, editor } = await newProject(service);
    await append(service, projectId, 'idea', { actor: editor, correlationId: randomUUID() });
    await completedExport(service, projectId);
    const found = await allChanges(service, projectId, 2);
    assert.deepEqual(
      found.map(({ revision }) => revision),
      upTo(found.length),
    );
    assert.equal((await projects.getProject({ id: projectId })).project?.revision, BigInt(found.length));
    const kinds = found.map(({ kind }) => ChangeKind[kind]);
    assert.deepEqual(kinds, [
      'PROJECT_CREATED',
      'MEMBER_ADDED',
      'MEMBER_ADDED',
      'VERSION_APPENDED',
      'EXPORT_CREATED',
      'EXPORT_STARTED',
      'EXPORT_COMPLETED',
    ]);
    const appended = found[3];
    assert.deepEqual([appended?.documentType, appended?.version, appended?.actorId], ['idea', 1, editor]);
    assert.equal(found[4]?.actorId, '');
    const { changes: rest } = await changes.listChanges({ projectId, afterRevision: 5n }, { actor: viewer });
    assert.deepEqual(
      rest.map(({ revision }) => revision),
      [6n, 7n],
    );
    for (const afterRevision of [7n, 8n, 9_000_000_000_000_000_000n]) {
      assert.deepEqual((await changes.listChanges({ projectId, afterRevision })).changes, []);
    }
  });

  it('is for members', async () => {
    const { projectId, stranger, owner: someone } = await newProject(service);
    await projects.updateProject({ project: { id: projectId, visibility: 2 } }, { actor: someone });
    await assert.rejects(changes.listChanges({ projectId }, { actor: stranger }), { reason: 'ROLE_REQUIRED' });
    const timeline = changes.getTimeline({ projectId, correlationId: randomUUID() }, { actor: stranger });
    await assert.rejects(timeline, { reason: 'ROLE_REQUIRED' });
  });

  it('carries a chain that anyone can compute again, and that shows an alteration and a loss', async () => {
    const { projectId, editor } = await newProject(service);
    const requests = times(20, (i) => append(service, projectId, `d${i % 3}`, { actor: editor }));
    await Promise.all([...requests, startRun(service, projectId), newExport(service, projectId)]);
    await documents.batchAppendVersions({
      projectId,
      entries: times(5, (i) => ({ documentType: 'b', content: `${i}` })),
    });
    const found = await allChanges(service, projectId);
    assert.equal(found.length, 30);
    assert.equal(firstBrokenLink(found), null);
    assert.equal(firstBrokenLink(found.filter(({ revision }) => revision !== 9n)), 9n);
    await owner.query(`update changes set caller = 'somebody else' where project_id = $1 and revision = 12`, [
      projectId,
    ]);
    assert.equal(firstBrokenLink(await allChanges(service, projectId)), 12n);
  });

  it('refuses a cursor that is older than what is kept', async () => {
    const { projectId } = await newProject(service);
    await Promise.all(times(10, () => append(service, projectId, 'idea')));
    const before = await allChanges(service, projectId);
    const token = (await changes.listChanges({ projectId, pageSize: 2 })).nextPageToken;
    const compact = async (upTo: number, most: number) =>
      (await admin.query(`select compact_changes($1, $2, $3) as gone`, [projectId, upTo, most])).rows[0].gone;
    assert.equal(await compact(6, 4), 4);
    assert.equal(await compact(6, 4), 2);
    assert.equal(await compact(6, 4), 0);
    for (const request of [{}, { afterRevision: 0n }, { afterRevision: 5n }, { pageSize: 2, pageToken: token }]) {
      await assert.rejects(changes.listChanges({ projectId, ...request }), {
        reason: 'REVISION_COMPACTED',
        metadata: { earliest_revision: '6' },
      });
    }
    assert.deepEqual((await changes.listChanges({ projectId, afterRevision: 6n })).changes, before.slice(6));
    assert.equal(await compact(1000, 1000), 7);
    assert.deepEqual((await changes.listChanges({ projectId, afterRevision: 13n })).changes, []);
    await append(service, projectId, 'idea');
    assert.equal((await changes.listChanges({ projectId, afterRevision: 13n })).changes[0]?.revision, 14n);
  });
});

describe('the timeline of a correlation id', () => {
  const read = async (projectId: string, correlationId: string, actor?: string, pageSize = 1000) => {
    const items = [];
    let pageToken = '';
    do {
      const page = await changes.getTimeline({ projectId, correlationId, pageSize, pageToken }, { actor });
      items.push(...page.items.map(({ item }) => item));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return items;
  };

  it('has the runs, versions and exports it caused, and the changes that made none of them, by time', async () => {
    const { projectId, viewer, editor, owner: someone } = await newProject(service);
    const correlationId = randomUUID();
    const options = { actor: editor, correlationId };
    await append(service, projectId, 'idea', options);
    const run = await startRun(service, projectId, options);
    await append(service, projectId, 'noise', { actor: editor });
    await executions.completeExecution(
      {
        projectId,
        id: run.id,
        leaseToken: run.leaseToken,
        output: { data: Buffer.from('{}') },
        versions: [
          { documentType: 'plan', content: 'a plan' },
          { documentType: 'idea', content: 'a better idea' },
        ],
      },
      options,
    );
    await newExport(service, projectId, { actor: viewer, correlationId });
    await projects.updateProject({ project: { id: projectId, name: 'New' } }, { actor: someone, correlationId });
    const items = await read(projectId, correlationId, viewer);
    assert.deepEqual(
      items.map((item) => {
        if (item.case === 'change') return ChangeKind[item.value.kind];
        if (item.case === 'version') return `${item.value.documentType} ${item.value.version}`;
        return item.case;
      }),
      ['idea 1', 'execution', 'plan 1', 'idea 2', 'EXECUTION_COMPLETED', 'export', 'PROJECT_UPDATED'],
    );
    for (const item of items) {
      if (item.case === 'execution') {
        assert.deepEqual([item.value.id, item.value.input, item.value.output], [run.id, undefined, undefined]);
        const got = (await executions.getExecution({ projectId, id: run.id })).execution;
        assert.deepEqual({ ...got, output: undefined }, { ...item.value, output: undefined });
      }
      if (item.case === 'version') assert.equal(item.value.content, '');
      if (item.case === 'export') assert.equal(item.value.manifest?.entries.length, 3);
    }
    assert.deepEqual(await read(projectId, correlationId, viewer, 2), items);
    assert.deepEqual(await read(projectId, randomUUID()), []);
  });

  it('has a run under the id it was given, and its making under the id of the call', async () => {
    const { projectId } = await newProject(service);
    const [flow, call] = [randomUUID(), randomUUID()];
    await executions.createExecution({ projectId, agentType: 'a', correlationId: flow }, { correlationId: call });
    assert.deepEqual(
      (await read(projectId, flow)).map((item) => item.case),
      ['execution'],
    );
    const [made, ...others] = await read(projectId, call);
    assert.equal(made?.case === 'change' && made.value.kind, ChangeKind.EXECUTION_CREATED);
    assert.deepEqual(others, []);
  });

  it('ends its pages at 3 MiB, whatever the items, and leaves none out', async () => {
    const { projectId } = await newProject(service);
    const correlationId = randomUUID();
    const metadata = { text: 'x'.repeat(16_000) };
    for (let i = 0; i < 4; i++) {
      await documents.batchAppendVersions(
        { projectId, entries: times(100, (n) => ({ documentType: `d${n}`, content: `${i}`, metadata })) },
        { correlationId },
      );
    }
    await newExport(service, projectId, { correlationId });
    const { nextPageToken } = await changes.getTimeline({ projectId, correlationId, pageSize: 1000 });
    assert.notEqual(nextPageToken, '');
    const items = await read(projectId, correlationId);
    assert.equal(items.filter((item) => item.case === 'version').length, 400);
    assert.equal(items.at(-1)?.case, 'export');
  });
});

describe('the rules of a watch', () => {
  it('finds a project that is named twice', () => {
    const cursors = ['a', 'b', 'c', 'b', 'c'].map((projectId) => ({ projectId }));
    assert.equal(repeatedProject(cursors), 3);
    assert.equal(repeatedProject(cursors.slice(0, 3)), -1);
  });

  it('reads few changes for a watch that is up to date, and bounds what one stream has waiting', () => {
    for (const [behind, cursors, rows] of [
      [false, 1, 10],
      [true, 1, 100],
      [true, 40, 50],
      [true, 1000, 10],
    ] as const) {
      assert.equal(rowsPerPoll(behind, cursors), rows);
    }
  });
});
