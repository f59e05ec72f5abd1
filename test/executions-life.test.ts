import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { changeKinds, newAgent, startRun } from './support/executions.ts';
import { useOwner } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { executions, documents, projects } = service;
const owner = await useOwner(service.db);

const { RUNNING, COMPLETED, FAILED, CANCELLED, TIMED_OUT, PENDING } = ExecutionStatus;

describe('a status', () => {
  const STATUSES = ['PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT'] as const;
  const LEGAL = new Set([
    'PENDING>RUNNING',
    'PENDING>CANCELLED',
    'RUNNING>COMPLETED',
    'RUNNING>FAILED',
    'RUNNING>CANCELLED',
    'RUNNING>TIMED_OUT',
  ]);
  const leaseOf = (status: string) =>
    status === 'RUNNING' ? "gen_random_uuid(), now() + interval '1 hour'" : 'null, null';
  const timesOf = (status: string) =>
    status === 'PENDING' ? 'null, null' : status === 'RUNNING' ? 'now(), null' : 'now(), now()';
  const inStatus = async (projectId: string, status: string): Promise<string> => {
    const { rows } = await owner.query<{ id: string }>(
      `insert into agent_executions (project_id, agent_type, correlation_id, caller, project_revision, status, start_time,
         complete_time, lease_token, lease_expire_time)
       values ($1, 'a', $1, 'test', 1, $2, ${timesOf(status)}, ${leaseOf(status)}) returning id`,
      [projectId, status],
    );
    return rows[0]?.id ?? '';
  };

  it('changes only as the contract has it, even for the owner of the tables', async () => {
    const { projectId } = await newProject(service);
    for (const from of STATUSES) {
      for (const to of STATUSES.filter((status) => status !== from)) {
        const id = await inStatus(projectId, from);
        const update = owner.query(
          `update agent_executions set status = $2, (start_time, complete_time) = (${timesOf(to)}),
             (lease_token, lease_expire_time) = (${leaseOf(to)}) where id = $1`,
          [id, to],
        );
        if (LEGAL.has(`${from}>${to}`)) await update;
        else await assert.rejects(update, { constraint: 'execution_transition' }, `${from} to ${to}`);
      }
    }
  });

  it('that a call cannot change is ILLEGAL_TRANSITION with from and to, or LEASE_LOST for a lease that is gone', async () => {
    const { projectId } = await newProject(service);
    const calls = {
      RUNNING: (id: string) => executions.startExecution({ projectId, id }),
      COMPLETED: (id: string) => executions.completeExecution({ projectId, id, leaseToken: 'x' }),
      FAILED: (id: string) => executions.failExecution({ projectId, id, leaseToken: 'x' }),
      CANCELLED: (id: string) => executions.cancelExecution({ projectId, id, cancelReason: 'enough' }),
    };
    for (const from of STATUSES) {
      const id = await inStatus(projectId, from);
      for (const [to, call] of Object.entries(calls)) {
        if (LEGAL.has(`${from}>${to}`)) continue;
        const lost = from === 'TIMED_OUT' && (to === 'COMPLETED' || to === 'FAILED');
        const metadata = { outcome: 'not_applied', ...(!lost && { from, to }) };
        const reason = lost ? 'LEASE_LOST' : 'ILLEGAL_TRANSITION';
        await assert.rejects(call(id), { reason, metadata }, `${from} to ${to}`);
      }
      await assert.rejects(executions.heartbeatExecution({ projectId, id, leaseToken: 'x' }), { reason: 'LEASE_LOST' });
      assert.equal((await executions.getExecution({ projectId, id })).execution?.status, ExecutionStatus[from]);
    }
  });

  it('is reached by one change a step, each with its own revision', async () => {
    const { projectId, editor } = await newProject(service);
    const options = { actor: editor };
    const created = await executions.createExecution({ projectId, agentType: newAgent() }, options);
    const id = created.execution?.id ?? '';
    const { leaseToken } = await executions.startExecution({ projectId, id }, options);
    const failed = await executions.failExecution({ projectId, id, leaseToken, errorMessage: 'broke' }, options);
    assert.deepEqual([failed.execution?.status, failed.execution?.errorMessage], [FAILED, 'broke']);
    const second = await startRun(service, projectId);
    const cancelled = await executions.cancelExecution({ projectId, id: second.id, cancelReason: 'enough' }, options);
    assert.deepEqual([cancelled.execution?.status, cancelled.execution?.cancelReason], [CANCELLED, 'enough']);
    assert.ok(!cancelled.execution?.leaseExpireTime && cancelled.execution?.duration);
    assert.deepEqual((await changeKinds(owner, projectId)).slice(-5), [
      'EXECUTION_CREATED',
      'EXECUTION_STARTED',
      'EXECUTION_FAILED',
      'EXECUTION_CREATED',
      'EXECUTION_CANCELLED',
    ]);
    const { usage } = await projects.getProjectUsage({ projectId });
    const counts = new Map(usage?.executions.map(({ status, count }) => [status, count]));
    const of = (status: ExecutionStatus) => counts.get(status) ?? 0n;
    assert.deepEqual([PENDING, RUNNING, FAILED, CANCELLED, TIMED_OUT].map(of), [0n, 0n, 1n, 1n, 0n]);
  });
});

describe('a lease', () => {
  it('is needed to go on, complete or fail: with another token it is lost', async () => {
    const { projectId } = await newProject(service);
    const { id } = await startRun(service, projectId);
    for (const leaseToken of ['no token at all', randomUUID()]) {
      const request = { projectId, id, leaseToken };
      await assert.rejects(executions.heartbeatExecution(request), { reason: 'LEASE_LOST' });
      await assert.rejects(executions.completeExecution(request), { reason: 'LEASE_LOST' });
      await assert.rejects(executions.failExecution(request), { reason: 'LEASE_LOST' });
    }
    assert.equal((await executions.getExecution({ projectId, id })).execution?.status, RUNNING);
    await assert.rejects(executions.heartbeatExecution({ projectId, id: randomUUID(), leaseToken: 'x' }), {
      reason: 'EXECUTION_NOT_FOUND',
    });
  });

  it('is lost when its time is over, before anything has noticed and after', async () => {
    const { projectId } = await newProject(service);
    const { id, leaseToken } = await startRun(service, projectId);
    // Keeps sweepers away from the project.
    await owner.query(`select pg_advisory_lock(hashtextextended('sweep|' || $1, 0))`, [projectId]);
    await owner.query(`update agent_executions set lease_expire_time = now() - interval '1 ms' where id = $1`, [id]);
    const refused = async () => {
      const request = { projectId, id, leaseToken };
      await assert.rejects(executions.heartbeatExecution(request), { reason: 'LEASE_LOST' });
      await assert.rejects(executions.completeExecution(request), { reason: 'LEASE_LOST' });
      await assert.rejects(executions.failExecution(request), { reason: 'LEASE_LOST' });
    };
    assert.equal((await executions.getExecution({ projectId, id })).execution?.status, RUNNING);
    await refused();
    await owner.query(
      `update agent_executions set status = 'TIMED_OUT', complete_time = now(), lease_token = null, lease_expire_time = null
       where id = $1`,
      [id],
    );
    await refused();
    await owner.query('select pg_advisory_unlock_all()');
  });

  it('is extended by a heartbeat, which is no change of the project', async () => {
    const { projectId } = await newProject(service);
    const { id, leaseToken, execution } = await startRun(service, projectId);
    const before = await projects.getProject({ id: projectId });
    const beat = await executions.heartbeatExecution({ projectId, id, leaseToken, leaseSeconds: 3600 });
    assert.ok((beat.execution?.leaseExpireTime?.seconds ?? 0n) > (execution?.leaseExpireTime?.seconds ?? 0n) + 3000n);
    const after = await projects.getProject({ id: projectId });
    assert.equal(after.project?.revision, before.project?.revision);
  });
});

describe('completing', () => {
  it('brings the documents with it, in the name of the run', async () => {
    const { projectId, editor } = await newProject(service);
    const { id, leaseToken } = await startRun(service, projectId);
    const other = await startRun(service, projectId);
    const versions = [
      { documentType: 'idea', content: 'one', expectedVersion: 0 },
      { documentType: 'idea', content: 'two', expectedVersion: 1, executionId: other.id },
    ];
    const request = {
      projectId,
      id,
      leaseToken,
      versions,
      model: 'm',
      inputTokens: 1n,
      outputTokens: 2n,
      costMicros: 3n,
    };
    const done = await executions.completeExecution(request, { actor: editor });
    assert.deepEqual(
      done.versions.map(({ version, executionId, content }) => [version, executionId, content]),
      [
        [1, id, ''],
        [2, other.id, ''],
      ],
    );
    assert.deepEqual([done.execution?.status, done.execution?.model, done.execution?.costMicros], [COMPLETED, 'm', 3n]);
    assert.ok(done.execution?.duration && done.execution.completeTime && !done.execution.leaseExpireTime);
    assert.deepEqual((await changeKinds(owner, projectId)).slice(-3), [
      'VERSION_APPENDED',
      'VERSION_APPENDED',
      'EXECUTION_COMPLETED',
    ]);
    const head = await documents.getVersion({ projectId, documentType: 'idea' });
    assert.equal(head.version?.content, 'two');
  });

  it('with a conflict leaves the run RUNNING and the documents as they were', async () => {
    const { projectId } = await newProject(service);
    const { id, leaseToken } = await startRun(service, projectId);
    const before = await changeKinds(owner, projectId);
    const versions = [
      { documentType: 'idea', content: 'one' },
      { documentType: 'plan', content: 'two', expectedVersion: 1 },
    ];
    const output = { data: Uint8Array.of(1) };
    await assert.rejects(executions.completeExecution({ projectId, id, leaseToken, output, versions }), {
      reason: 'VERSION_CONFLICT',
      fields: ['versions[1]'],
      metadata: { current_version: '0', entry: '1', outcome: 'not_applied' },
    });
    const { execution } = await executions.getExecution({ projectId, id });
    assert.deepEqual([execution?.status, execution?.output], [RUNNING, undefined]);
    assert.deepEqual((await documents.listDocuments({ projectId })).documents, []);
    assert.deepEqual(await changeKinds(owner, projectId), before);
    await executions.completeExecution({ projectId, id, leaseToken, output });
  });

  it('takes 3.25 MiB at most', async () => {
    const { projectId } = await newProject(service);
    const { id, leaseToken } = await startRun(service, projectId);
    const output = { data: new Uint8Array(1024 * 1024) };
    const versions = [{ documentType: 'idea', content: 'x'.repeat(2.25 * 1024 * 1024) }];
    await assert.rejects(executions.completeExecution({ projectId, id, leaseToken, output, versions }), {
      reason: 'CONTENT_TOO_LARGE',
      fields: ['versions'],
    });
    versions[0] = { documentType: 'idea', content: 'x'.repeat(2.2 * 1024 * 1024) };
    await executions.completeExecution({ projectId, id, leaseToken, output, versions });
  });
});
