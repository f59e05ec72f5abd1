import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { changeKinds, newAgent, startRun, useOwner } from './support/executions.ts';
import { newProject, newUser, useService } from './support/service.ts';

const service = await useService();
const { executions, documents, projects } = service;
const owner = await useOwner(service.db);

const { PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMED_OUT } = ExecutionStatus;
const HOUR = 3_600_000;
const COPIES = 50;

describe('recording a run', () => {
  it('keeps payloads byte for byte, and answers each only where its caller needs it', async () => {
    const { projectId, editor, viewer } = await newProject(service);
    const data = new Uint8Array([0, 255, ...randomBytes(1024 * 1024 - 2)]);
    const input = { contentType: 'application/octet-stream', data };
    const created = await executions.createExecution({ projectId, agentType: 'a', input }, { actor: editor });
    const id = created.execution?.id ?? '';
    assert.deepEqual(created.execution?.input?.data, data);
    assert.equal(created.leaseToken, '');
    const { execution, leaseToken } = await executions.startExecution({ projectId, id }, { actor: editor });
    assert.deepEqual(execution?.input?.data, data);
    const output = { data: new Uint8Array() };
    const beat = await executions.heartbeatExecution({ projectId, id, leaseToken }, { actor: editor });
    assert.deepEqual([beat.execution?.input, beat.execution?.output], [undefined, undefined]);
    const done = await executions.completeExecution({ projectId, id, leaseToken, output }, { actor: editor });
    assert.deepEqual([done.execution?.input, done.execution?.output?.data.length], [undefined, 0]);
    const got = await executions.getExecution({ projectId, id }, { actor: viewer });
    assert.deepEqual(got.execution?.input?.data, data);
    assert.equal(got.execution?.input?.contentType, 'application/octet-stream');
    assert.equal(got.execution?.output?.contentType, 'application/json');
    const listed = await executions.listExecutions({ projectId }, { actor: viewer });
    assert.deepEqual([listed.executions[0]?.input, listed.executions[0]?.output], [undefined, undefined]);
  });

  it('fills in what the caller leaves out', async () => {
    const { projectId, editor } = await newProject(service);
    const correlationId = randomUUID();
    const options = { actor: editor, correlationId };
    const { execution, leaseToken } = await executions.createExecution(
      { projectId, agentType: 'a', start: true },
      options,
    );
    assert.equal(execution?.correlationId, correlationId);
    assert.deepEqual([execution?.attempt, execution?.status, execution?.createdBy], [1, RUNNING, editor]);
    assert.equal((execution?.leaseExpireTime?.seconds ?? 0n) - (execution?.startTime?.seconds ?? 0n), 300n);
    assert.match(leaseToken, /^[0-9a-f-]{36}$/);
    const system = await executions.createExecution({
      projectId,
      agentType: 'a',
      correlationId: projectId,
      attempt: 3,
    });
    assert.deepEqual([system.execution?.createdBy, system.execution?.attempt], ['', 3]);
    assert.equal(system.execution?.correlationId, projectId);
  });

  it('takes a parent of the same project only, an input of 1 MiB at most, and an editor', async () => {
    const [one, other] = [await newProject(service), await newProject(service)];
    const parent = await executions.createExecution({ projectId: other.projectId, agentType: 'a' });
    const request = { projectId: one.projectId, agentType: 'a' };
    const stranger = { ...request, parentExecutionId: parent.execution?.id ?? '' };
    await assert.rejects(executions.createExecution(stranger), {
      reason: 'EXECUTION_NOT_FOUND',
      fields: ['parent_execution_id'],
    });
    const large = { ...request, input: { data: new Uint8Array(1024 * 1024 + 1) } };
    await assert.rejects(executions.createExecution(large), { reason: 'CONTENT_TOO_LARGE', fields: ['input.data'] });
    await assert.rejects(executions.createExecution(request, { actor: one.viewer }), { reason: 'ROLE_REQUIRED' });
    await assert.rejects(executions.createExecution(request, { actor: one.stranger }), { reason: 'PROJECT_NOT_FOUND' });
    const claim = executions.claimExecution({}, { actor: one.owner });
    await assert.rejects(claim, { reason: 'SCOPE_REQUIRED' });
  });

  it('stops at the quota', async () => {
    const { projectId } = await newProject(service);
    await projects.setProjectQuota({ projectId, quota: { executions: 2n } });
    const executionsOf = (count: number) => ({
      projectId,
      executions: Array.from({ length: count }, () => ({ agentType: 'a', status: PENDING })),
    });
    await executions.createExecution({ projectId, agentType: 'a' });
    await assert.rejects(executions.batchCreateExecutions(executionsOf(2)), {
      reason: 'QUOTA_EXCEEDED',
      metadata: { quota: 'executions', limit: '2', used: '1', outcome: 'not_applied' },
    });
    await executions.batchCreateExecutions(executionsOf(1));
    const { usage } = await projects.getProjectUsage({ projectId });
    assert.deepEqual(
      usage?.executions.map(({ status, count }) => [status, count]),
      [[PENDING, 2n]],
    );
  });
});

describe('a batch', () => {
  it('of 1000 records runs in any status, in order, as one contiguous range of changes', async () => {
    const { projectId, editor } = await newProject(service);
    const startTime = timestampFromMs(Date.now() - HOUR);
    const completeTime = timestampFromMs(Date.now() - HOUR / 2);
    const statuses = [PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMED_OUT];
    const entries = Array.from({ length: 1000 }, (_, index) => {
      const status = statuses[index % statuses.length] ?? PENDING;
      const times = status === PENDING || status === RUNNING ? {} : { startTime, completeTime };
      const output = status === COMPLETED ? { data: Uint8Array.of(index % 256) } : undefined;
      return {
        agentType: `agent-${index}`,
        status,
        leaseSeconds: 60,
        costMicros: 2n ** 60n,
        ...times,
        ...(output && { output }),
      };
    });
    const answer = await executions.batchCreateExecutions({ projectId, executions: entries }, { actor: editor });
    assert.deepEqual(
      answer.executions.map(({ agentType, status, costMicros }) => ({ agentType, status, costMicros })),
      entries.map(({ agentType, status, costMicros }) => ({ agentType, status, costMicros })),
    );
    assert.deepEqual(
      answer.leaseTokens.map((token) => token !== ''),
      entries.map(({ status }) => status === RUNNING),
    );
    const [, running, completed] = answer.executions;
    assert.equal(completed?.duration?.seconds, BigInt(HOUR / 2000));
    const changes = await changeKinds(owner, projectId);
    assert.deepEqual(
      changes.slice(-1000),
      Array.from({ length: 1000 }, () => 'EXECUTION_CREATED'),
    );
    const got = await executions.getExecution({ projectId, id: completed?.id ?? '' });
    assert.deepEqual([...(got.execution?.output?.data ?? [])], [2]);
    const leaseToken = answer.leaseTokens[1] ?? '';
    await executions.completeExecution({ projectId, id: running?.id ?? '', leaseToken }, { actor: editor });
  });

  it('is refused as a whole for one entry, which the error names', async () => {
    const { projectId } = await newProject(service);
    const startTime = timestampFromMs(Date.now() - HOUR);
    const later = timestampFromMs(Date.now() + HOUR);
    const good = { agentType: 'a', status: PENDING };
    const wrong: [object, string, string][] = [
      [{ status: COMPLETED, startTime, completeTime: later }, 'INVALID_FIELD', 'complete_time'],
      [{ status: RUNNING, startTime: later, leaseSeconds: 9 }, 'INVALID_FIELD', 'start_time'],
      [{ status: COMPLETED, completeTime: startTime }, 'INVALID_FIELD', 'start_time'],
      [{ status: RUNNING }, 'INVALID_FIELD', 'lease_seconds'],
      [{ status: PENDING, parentExecutionId: randomUUID() }, 'EXECUTION_NOT_FOUND', 'parent_execution_id'],
    ];
    for (const [entry, reason, field] of wrong) {
      const batch = { projectId, executions: [good, { ...good, ...entry }, good] };
      const fields = [`executions[1].${field}`];
      await assert.rejects(executions.batchCreateExecutions(batch), { reason, fields }, field);
    }
    const input = { data: new Uint8Array(930_000) };
    const large = { projectId, executions: [1, 2, 3, 4].map(() => ({ ...good, input })) };
    await assert.rejects(executions.batchCreateExecutions(large), { reason: 'CONTENT_TOO_LARGE' });
    assert.deepEqual((await executions.listExecutions({ projectId })).executions, []);
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

describe('listing runs', () => {
  it('goes newest first in pages, by correlation, status, agent and start', async () => {
    const { projectId, viewer } = await newProject(service);
    const correlationId = randomUUID();
    const at = (minute: number) => timestampFromMs(Date.UTC(2026, 0, 1, 0, minute));
    const entry = (agentType: string, minute: number, status = COMPLETED) => ({
      agentType,
      status,
      startTime: at(minute),
      completeTime: at(minute),
      ...(minute > 2 && { correlationId }),
    });
    const batch = [entry('a', 1), entry('a', 2), entry('b', 3), entry('b', 4, FAILED), entry('a', 5, FAILED)];
    const made = await executions.batchCreateExecutions({ projectId, executions: batch });
    const list = async (filter: object) => {
      const seen: number[] = [];
      let pageToken = '';
      do {
        const request = { projectId, pageSize: 2, pageToken, ...filter };
        const page = await executions.listExecutions(request, { actor: viewer });
        seen.push(
          ...page.executions.map(({ id }) => made.executions.findIndex((execution) => execution.id === id) + 1),
        );
        pageToken = page.nextPageToken;
      } while (pageToken !== '');
      return seen;
    };
    assert.deepEqual(await list({}), [5, 4, 3, 2, 1]);
    assert.deepEqual(await list({ correlationId }), [5, 4, 3]);
    assert.deepEqual(await list({ statuses: [FAILED, RUNNING] }), [5, 4]);
    assert.deepEqual(await list({ agentType: 'a' }), [5, 2, 1]);
    assert.deepEqual(await list({ startedAfter: at(2), startedBefore: at(4) }), [3, 2]);
    const { nextPageToken } = await executions.listExecutions({ projectId, pageSize: 1 });
    await assert.rejects(executions.listExecutions({ projectId, agentType: 'a', pageToken: nextPageToken }), {
      reason: 'INVALID_PAGE_TOKEN',
    });
    await assert.rejects(executions.listExecutions({ projectId }, { actor: await newUser(service) }), {
      reason: 'PROJECT_NOT_FOUND',
    });
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

  it('takes 3.5 MiB at most', async () => {
    const { projectId } = await newProject(service);
    const { id, leaseToken } = await startRun(service, projectId);
    const output = { data: new Uint8Array(1024 * 1024) };
    const versions = [{ documentType: 'idea', content: 'x'.repeat(2.6 * 1024 * 1024) }];
    await assert.rejects(executions.completeExecution({ projectId, id, leaseToken, output, versions }), {
      reason: 'CONTENT_TOO_LARGE',
    });
    versions[0] = { documentType: 'idea', content: 'x'.repeat(2.4 * 1024 * 1024) };
    await executions.completeExecution({ projectId, id, leaseToken, output, versions });
  });
});

describe('one request id', () => {
  it('means one effect and one answer, however often it is sent at once', async () => {
    const { projectId, editor } = await newProject(service);
    const options = { actor: editor, timeout: 30_000 };
    const agentType = newAgent();
    const input = { data: Uint8Array.of(1, 2) };
    const same = async <R>(send: (requestId: string) => Promise<R>): Promise<R> => {
      const before = await changeKinds(owner, projectId);
      const requestId = randomUUID();
      const answers = await Promise.all(Array.from({ length: COPIES }, () => send(requestId)));
      for (const answer of answers) assert.deepEqual(answer, answers[0]);
      const added = (await changeKinds(owner, projectId)).length - before.length;
      assert.ok(added <= 3, `${added} changes`);
      return answers[0] as R;
    };
    const pending = () => executions.createExecution({ projectId, agentType, input }, options);
    const created = await same((requestId) =>
      executions.createExecution({ projectId, agentType, input, requestId }, options),
    );
    const id = created.execution?.id ?? '';
    const claimed = await same((requestId) => executions.claimExecution({ agentTypes: [agentType], requestId }));
    assert.deepEqual([claimed.execution?.id, claimed.execution?.input?.data], [id, input.data]);
    const none = await same((requestId) => executions.claimExecution({ agentTypes: [agentType], requestId }));
    assert.deepEqual([none.execution, none.leaseToken], [undefined, '']);
    const second = (await pending()).execution?.id ?? '';
    const begun = await same((requestId) => executions.startExecution({ projectId, id: second, requestId }, options));
    assert.deepEqual(begun.execution?.input?.data, input.data);
    const held = { projectId, id: second, leaseToken: begun.leaseToken };
    await same((requestId) => executions.heartbeatExecution({ ...held, requestId }, options));
    const versions = [{ documentType: 'idea', content: 'text' }];
    const done = await same((requestId) =>
      executions.completeExecution({ ...held, output: input, versions, requestId }, options),
    );
    assert.deepEqual([done.versions[0]?.version, done.execution?.output?.data], [1, input.data]);
    const failing = { projectId, id, leaseToken: claimed.leaseToken, errorMessage: 'no' };
    await same((requestId) => executions.failExecution({ ...failing, requestId }, options));
    const third = (await pending()).execution?.id ?? '';
    await same((requestId) => executions.cancelExecution({ projectId, id: third, requestId }, options));
    const batch = { projectId, executions: [1, 2, 3].map(() => ({ agentType, status: RUNNING, leaseSeconds: 60 })) };
    const many = await same((requestId) => executions.batchCreateExecutions({ ...batch, requestId }, options));
    assert.equal(new Set(many.leaseTokens).size, 3);
    assert.equal((await executions.listExecutions({ projectId })).executions.length, 6);
  });

  it('is refused with another request', async () => {
    const { projectId } = await newProject(service);
    const requestId = randomUUID();
    await executions.createExecution({ projectId, agentType: 'a', requestId });
    await assert.rejects(executions.createExecution({ projectId, agentType: 'b', requestId }), {
      reason: 'REQUEST_ID_REUSED',
    });
  });
});
