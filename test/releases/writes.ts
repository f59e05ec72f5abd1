import assert from 'node:assert/strict';
import type { Client } from 'pg';
import { ExecutionStatus } from '../../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ExportStatus } from '../../src/gen/jeex/persistence/v1/export_service_pb.js';
import { Role } from '../../src/gen/jeex/persistence/v1/project_service_pb.js';
import { FILE } from '../support/exports.ts';
import type { Clients } from '../support/service.ts';

type Row = Readonly<Record<string, string>>;

/** Changes something that is there of every kind, in every state that can still change. @param admin a superuser */
export const writeToEach = async (clients: Clients, admin: Client): Promise<void> => {
  const find = async (what: string): Promise<Row> => {
    const { rows } = await admin.query<Row>(`${what} limit 1`);
    assert.ok(rows[0], `there is one: ${what}`);
    return rows[0];
  };
  await users(clients, find);
  await projects(clients, find);
  await documents(clients, find);
  await executions(clients, find);
  await exports(clients, find);
};

type Find = (what: string) => Promise<Row>;

/** Of live projects, what a call needs to name one thing in a state. */
const inState = (table: string, status: string, more = '') =>
  `select e.project_id as "projectId", e.id, e.lease_token as "leaseToken" from ${table} e
   join projects p on p.id = e.project_id and p.delete_time is null where e.status = '${status}' ${more}`;

const users = async ({ users }: Clients, find: Find): Promise<void> => {
  const { id = '' } = await find('select id from users where profile is not null');
  const { user } = await users.updateUser({ user: { id, name: 'Another', profile: { another: true } } });
  assert.deepEqual([user?.name, user?.profile], ['Another', { another: true }]);
  assert.ok((await users.recordLogin({ id })).user?.lastLoginTime);
  await users.deleteUser({ id: (await find(`select id from users where name = 'Stranger'`)).id ?? '' });
};

const projects = async ({ projects }: Clients, find: Find): Promise<void> => {
  const { id = '' } = await find('select id from projects where delete_time is null');
  const { project } = await projects.updateProject({ project: { id, name: 'Another' } });
  assert.equal(project?.name, 'Another');
  const { projectId, userId } = await find(
    `select project_id as "projectId", user_id as "userId" from project_members where role = 'VIEWER'`,
  );
  const { member } = await projects.setMember({ projectId, userId, role: Role.EDITOR });
  assert.equal(member?.role, Role.EDITOR);
  const deleted = await find('select id from projects where delete_time is not null');
  const undeleted = await projects.undeleteProject({ id: deleted.id ?? '' });
  assert.equal(undeleted.project?.deleteTime, undefined);
};

const documents = async ({ documents }: Clients, find: Find): Promise<void> => {
  const { projectId, documentType, head } = await find(
    `select project_id as "projectId", document_type as "documentType", head_version as head from documents
     where document_type = 'odd'`,
  );
  const next = { projectId, documentType, expectedVersion: Number(head) };
  const { version } = await documents.appendVersion({ ...next, content: 'more' });
  assert.equal(version?.version, Number(head) + 1);
  const restored = await documents.restoreVersion({ projectId, documentType, version: 1 });
  assert.equal(restored.version?.restoredFromVersion, 1);
};

const executions = async ({ executions }: Clients, find: Find): Promise<void> => {
  const running = await find(inState('agent_executions', 'RUNNING'));
  await executions.heartbeatExecution(running);
  const { execution } = await executions.completeExecution({
    ...running,
    model: 'a model',
    output: { data: Buffer.of(0) },
  });
  assert.deepEqual([execution?.status, execution?.model], [ExecutionStatus.COMPLETED, 'a model']);
  const pending = await find(inState('agent_executions', 'PENDING'));
  const { leaseToken } = await executions.startExecution({ projectId: pending.projectId, id: pending.id });
  const failed = await executions.failExecution({ ...pending, leaseToken, errorMessage: 'an error' });
  assert.equal(failed.execution?.status, ExecutionStatus.FAILED);
  const { projectId } = pending;
  await executions.createExecution({ projectId, agentType: 'another', parentExecutionId: pending.id });
};

const exports = async ({ exports }: Clients, find: Find): Promise<void> => {
  const processing = await find(inState('exports', 'PROCESSING'));
  const { export: completed } = await exports.completeExport({ ...processing, ...FILE });
  assert.equal(completed?.status, ExportStatus.COMPLETED);
  const { projectId, id } = await find(inState('exports', 'COMPLETED', 'and e.download_count > 0'));
  const { export: downloaded } = await exports.recordDownload({ projectId, id });
  assert.ok((downloaded?.downloadCount ?? 0n) > 1n);
  const { export: claimed, leaseToken } = await exports.claimExport({});
  await exports.failExport({ projectId: claimed?.projectId, id: claimed?.id, leaseToken, errorMessage: 'an error' });
  await exports.createExport({ projectId });
};
