import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ProjectStatus, Role } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { EXAMPLES, newWorld } from './support/examples.ts';
import { callOf, type Fields, methodOf, outcomeOf } from './support/methods.ts';
import { connectAs, useOwner } from './support/postgres.ts';
import { newUser, useService } from './support/service.ts';

const service = await useService();
const { projects, documents, users } = service;
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);
const app = await connectAs(service.db.appUrl);

describe('deleting a project', () => {
  const DAYS = 24n * 60n * 60n;

  it('hides it, and undeleting brings it back as it was', async () => {
    const { projectId: id, owner: first, viewer } = await newWorld(service);
    await documents.appendVersion({ projectId: id, documentType: 'idea', content: 'kept' });
    const { project: before } = await projects.getProject({ id }, { actor: first });
    const { project: deleted } = await projects.deleteProject({ id }, { actor: first });
    assert.equal((deleted?.purgeTime?.seconds ?? 0n) - (deleted?.deleteTime?.seconds ?? 0n), 30n * DAYS);
    assert.equal(deleted?.purgeTime?.nanos, deleted?.deleteTime?.nanos);

    const get = (actor: string, showDeleted: boolean) => outcomeOf(projects.getProject({ id, showDeleted }, { actor }));
    assert.deepEqual(
      [await get(first, false), await get(first, true), await get(viewer, true)],
      ['PROJECT_DELETED', 'OK', 'PROJECT_NOT_FOUND'],
    );
    const listed = async (actor: string, showDeleted: boolean) =>
      (await projects.listProjects({ showDeleted }, { actor })).projects.length;
    assert.deepEqual([await listed(first, false), await listed(first, true), await listed(viewer, true)], [0, 1, 0]);

    const { project: again } = await projects.deleteProject({ id }, { actor: first });
    assert.deepEqual(again, deleted, 'deleting a deleted project changes nothing');

    const { project: back } = await projects.undeleteProject({ id }, { actor: first });
    assert.deepEqual([back?.deleteTime, back?.purgeTime], [undefined, undefined]);
    assert.equal(back?.revision, (before?.revision ?? 0n) + 2n);
    const { project: still } = await projects.undeleteProject({ id }, { actor: first });
    assert.deepEqual(still, back);
    const { version } = await documents.getVersion({ projectId: id, documentType: 'idea' }, { actor: viewer });
    assert.equal(version?.content, 'kept');
  });

  it('keeps its runs from being claimed', async () => {
    const { projectId } = await newWorld(service);
    const agentType = randomUUID();
    await service.executions.createExecution({ projectId, agentType });
    await projects.deleteProject({ id: projectId });
    assert.equal((await service.executions.claimExecution({ agentTypes: [agentType] })).execution, undefined);
    await projects.undeleteProject({ id: projectId });
    assert.ok((await service.executions.claimExecution({ agentTypes: [agentType] })).execution);
  });
});

describe('purging a project', () => {
  /** The rows about a project, by table: every table that names projects, whatever later migrations add. */
  const rowsOf = async (projectId: string): Promise<Record<string, number>> => {
    const { rows: tables } = await owner.query(
      `select c.table_name as name, c.column_name as key from information_schema.columns c
       join information_schema.tables t using (table_schema, table_name)
       where c.table_schema = 'jeex' and t.table_type = 'BASE TABLE'
         and (c.column_name = 'project_id' or (c.table_name = 'projects' and c.column_name = 'id')) order by 1`,
    );
    const counts: Record<string, number> = {};
    // As a superuser, since two of the tables are the definer functions' alone.
    for (const { name, key } of tables) {
      const { rows } = await admin.query(`select count(*)::int as n from jeex.${name} where ${key} = $1`, [projectId]);
      counts[name] = rows[0].n;
    }
    return counts;
  };

  it('leaves no row of it in any table but the record of the purge', async () => {
    const world = await newWorld(service);
    const { projectId } = world;
    for (const key of ['DocumentService/AppendVersion', 'ExportService/CreateExport']) {
      const { request, options } = (await EXAMPLES[key]?.(world)) ?? { request: {}, options: {} };
      await callOf(service, methodOf(key))({ ...request, requestId: randomUUID() }, options);
    }
    const { request, options } = (await EXAMPLES['AgentExecutionService/CompleteExecution']?.(world)) ?? {
      request: {},
      options: {},
    };
    await service.executions.completeExecution(request, options);
    const { revision } = (await projects.getProject({ id: projectId })).project ?? { revision: 0n };

    const { purges: none, ...before } = await rowsOf(projectId);
    assert.equal(none, 0);
    assert.deepEqual(
      Object.keys(before).filter((table) => before[table] === 0),
      [],
      'tables without a row to purge',
    );
    const purged = await projects.purgeProject({ id: projectId });
    assert.deepEqual([purged.projectId, purged.revision], [projectId, revision]);
    const after = await rowsOf(projectId);
    assert.deepEqual(after, { ...Object.fromEntries(Object.keys(after).map((table) => [table, 0])), purges: 1 });
    assert.equal(await outcomeOf(projects.purgeProject({ id: projectId })), 'PROJECT_NOT_FOUND');
  });

  it('goes in parts of any size, whatever refers to whatever', async () => {
    const { projectId, editor } = await newWorld(service);
    const document = { projectId, documentType: 'idea' };
    for (const content of ['one', 'two']) await documents.appendVersion({ ...document, content }, { actor: editor });
    await documents.restoreVersion({ ...document, version: 1, reason: 'back' }, { actor: editor });
    const { execution: parent } = await service.executions.createExecution({ projectId, agentType: 'a' });
    await service.executions.createExecution({ projectId, agentType: 'b', parentExecutionId: parent?.id ?? '' });
    await service.exports.createExport({ projectId });
    let parts = 0;
    for (let removed = 1; removed > 0; parts++) {
      await admin.query(`select set_config('jeex.project_id', $1, false)`, [projectId]);
      removed = Number((await admin.query('select remove_rows($1, 1) as n', [projectId])).rows[0].n);
    }
    assert.ok(parts > 20, `${parts} parts`);
    assert.equal((await admin.query('delete from projects where id = $1', [projectId])).rowCount, 1);
  });

  it('shows nobody a project whose purge has begun', async () => {
    const { projectId: id, owner: first } = await newWorld(service);
    await admin.query('update projects set delete_time = now(), purge_time = now() where id = $1', [id]);
    for (const actor of [first, undefined]) {
      assert.equal(await outcomeOf(projects.getProject({ id, showDeleted: true }, { actor })), 'PROJECT_NOT_FOUND');
      assert.equal(await outcomeOf(projects.undeleteProject({ id }, { actor })), 'PROJECT_NOT_FOUND');
    }
    assert.deepEqual((await projects.listProjects({ showDeleted: true }, { actor: first })).projects, []);
  });

  it('happens by itself when the time has come, and not before', async () => {
    const { projectId } = await newWorld(service);
    await projects.deleteProject({ id: projectId });
    const purgeDue = async () => (await app.query('select purge_due() as n')).rows[0].n as number;
    while ((await purgeDue()) > 0);
    assert.equal(await outcomeOf(projects.getProject({ id: projectId, showDeleted: true })), 'OK');
    await owner.query(`update projects set purge_time = now() where id = $1`, [projectId]);
    while ((await purgeDue()) > 0);
    assert.equal(await outcomeOf(projects.getProject({ id: projectId, showDeleted: true })), 'PROJECT_NOT_FOUND');
  });
});

describe('listing projects', () => {
  it('goes newest first in pages, by status, and each token stays with its list', async () => {
    const actor = await newUser(service);
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) {
      const { project } = await projects.createProject({ name: `${i}`, language: 'en' }, { actor });
      ids.unshift(project?.id ?? '');
    }
    const active = [ids[1] ?? '', ids[3] ?? ''];
    for (const id of active) await projects.updateProject({ project: { id, status: ProjectStatus.ACTIVE } });
    const seen: string[] = [];
    let pageToken = '';
    let first = '';
    do {
      const page = await projects.listProjects({ pageSize: 2, pageToken }, { actor });
      seen.push(...page.projects.map(({ id }) => id));
      pageToken = page.nextPageToken;
      first ||= pageToken;
    } while (pageToken !== '');
    assert.deepEqual(seen, ids);
    const found = await projects.listProjects({ statuses: [ProjectStatus.ACTIVE] }, { actor });
    assert.deepEqual(
      found.projects.map(({ id }) => id),
      active,
    );
    const wider = await projects.listProjects({ pageSize: 1000, pageToken: first }, { actor });
    assert.deepEqual(
      wider.projects.map(({ id }) => id),
      ids.slice(2),
    );
    const other = projects.listProjects({ showDeleted: true, pageToken: first }, { actor });
    assert.equal(await outcomeOf(other), 'INVALID_PAGE_TOKEN');
    assert.equal(await outcomeOf(users.listUsers({ pageToken: first })), 'INVALID_PAGE_TOKEN');
  });
});

describe('quotas and usage', () => {
  it('count what is there', async () => {
    const world = await newWorld(service);
    const { projectId, editor } = world;
    const contents = ['one', 'two', 'one', 'ä€😀'];
    for (const content of contents) {
      await documents.appendVersion({ projectId, documentType: 'idea', content }, { actor: editor });
    }
    await documents.restoreVersion({ projectId, documentType: 'idea', version: 1 }, { actor: editor });
    await documents.appendVersion({ projectId, documentType: 'plan', content: 'one' }, { actor: editor });
    const start = { projectId, agentType: 'a', start: true };
    await service.executions.createExecution(start, { actor: editor });
    await service.executions.createExecution({ ...start, start: false }, { actor: editor });
    const { execution } = await service.executions.createExecution(start, { actor: editor });
    await service.executions.cancelExecution({ projectId, id: execution?.id ?? '' }, { actor: editor });
    await service.exports.createExport({ projectId }, { actor: editor });

    const { usage } = await projects.getProjectUsage({ projectId }, { actor: editor });
    const { rows } = await owner.query(
      `select (select count(*) from documents where project_id = $1) as documents,
        (select count(*) from document_versions where project_id = $1) as versions,
        (select sum(size_bytes) from document_bodies where project_id = $1) as content_bytes,
        (select count(*) from exports where project_id = $1) as exports,
        (select jsonb_object_agg(status, n) from (
          select status, count(*) as n from agent_executions where project_id = $1 group by 1) c) as executions`,
      [projectId],
    );
    const counted = rows[0];
    assert.deepEqual([usage?.documents, usage?.versions, usage?.contentBytes, usage?.exports].map(String), [
      counted.documents,
      counted.versions,
      counted.content_bytes,
      counted.exports,
    ]);
    assert.deepEqual(
      Object.fromEntries(
        usage?.executions
          .filter(({ count }) => count > 0n)
          .map(({ status, count }) => [ExecutionStatus[status], Number(count)]) ?? [],
      ),
      counted.executions,
    );
    assert.equal(usage?.contentBytes, BigInt(Buffer.byteLength('onetwoä€😀')));
    assert.deepEqual(
      [usage?.quota?.contentBytes, usage?.quota?.documents, usage?.quota?.versions, usage?.quota?.executions],
      [1n << 30n, 1000n, 100_000n, 1_000_000n],
    );
  });

  it('stop what would exceed them, say by which, and let the rest go on', async () => {
    const { projectId } = await newWorld(service);
    const append = (documentType: string, content: string) =>
      documents.appendVersion({ projectId, documentType, content });
    const set = (quota: Fields) => projects.setProjectQuota({ projectId, quota });
    await append('idea', '12345');
    const refused = (quota: string, limit: string, used: string) => ({
      reason: 'QUOTA_EXCEEDED',
      metadata: { quota, limit, used, outcome: 'not_applied' },
    });
    await set({ documents: 1n });
    await assert.rejects(append('plan', 'x'), refused('documents', '1', '1'));
    assert.equal((await append('idea', '12345')).version?.version, 2);
    await set({ contentBytes: 7n });
    await assert.rejects(append('idea', '123'), refused('content_bytes', '7', '5'));
    assert.equal((await append('idea', '12')).version?.version, 3, 'exactly the quota fits');
    await set({ versions: 2n });
    await assert.rejects(append('idea', '12'), refused('versions', '2', '3'));
    const { usage } = await set({});
    assert.deepEqual(
      [usage?.quota?.documents, usage?.quota?.contentBytes, usage?.quota?.versions, usage?.quota?.executions],
      [1n, 7n, 2n, 1_000_000n],
    );
    assert.equal((await documents.getVersion({ projectId, documentType: 'idea' })).version?.version, 3);
  });

  it('allow 1 000 members', async () => {
    const { projectId } = await newWorld(service);
    await owner.query(
      `with made as (insert into users (email, name, caller, correlation_id)
        select $1 || i || '@example.org', 'M', 'test', gen_random_uuid() from generate_series(1, 997) i
         returning id)
       insert into project_members (project_id, user_id, role) select $1::uuid, id, 'VIEWER' from made`,
      [projectId],
    );
    const [last, more] = [await newUser(service), await newUser(service)];
    const join = (userId: string) => projects.setMember({ projectId, userId, role: Role.VIEWER });
    await assert.rejects(join(more), {
      reason: 'QUOTA_EXCEEDED',
      metadata: { quota: 'members', limit: '1000', used: '1000', outcome: 'not_applied' },
    });
    assert.equal(await outcomeOf(projects.removeMember({ projectId, userId: more })), 'MEMBER_NOT_FOUND');
    const { rows } = await owner.query(
      'select user_id from project_members where project_id = $1 and role = $2 limit 1',
      [projectId, 'VIEWER'],
    );
    await projects.removeMember({ projectId, userId: rows[0].user_id });
    assert.equal((await join(last)).member?.userId, last);
  });
});
