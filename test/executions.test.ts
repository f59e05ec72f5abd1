import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { changeKinds } from './support/executions.ts';
import { useOwner } from './support/postgres.ts';
import { newProject, newUser, useService } from './support/service.ts';

const service = await useService();
const { executions, projects } = service;
const owner = await useOwner(service.db);

const { PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMED_OUT } = ExecutionStatus;
const HOUR = 3_600_000;

describe('recording a run', () => {
  it('keeps payloads byte for byte, and answers each only where its caller needs it', async () => {
    const { projectId, editor, viewer } = await newProject(service);
    const data = Buffer.concat([Buffer.of(0, 255), randomBytes(1024 * 1024 - 2)]);
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
        costMicros: status === PENDING ? 0n : 2n ** 60n,
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
      ...[PENDING, RUNNING].flatMap((status): [object, string, string][] => [
        [{ status, leaseSeconds: 9, output: { data: Uint8Array.of(1) } }, 'INVALID_FIELD', 'output'],
        [{ status, leaseSeconds: 9, errorMessage: 'e' }, 'INVALID_FIELD', 'error_message'],
        [{ status, leaseSeconds: 9, cancelReason: 'c' }, 'INVALID_FIELD', 'cancel_reason'],
      ]),
      [{ status: PENDING, model: 'm' }, 'INVALID_FIELD', 'model'],
      [{ status: PENDING, inputTokens: 1n }, 'INVALID_FIELD', 'input_tokens'],
      [{ status: PENDING, outputTokens: 1n }, 'INVALID_FIELD', 'output_tokens'],
      [{ status: PENDING, costMicros: 1n }, 'INVALID_FIELD', 'cost_micros'],
      [{ status: PENDING, parentExecutionId: randomUUID() }, 'EXECUTION_NOT_FOUND', 'parent_execution_id'],
    ];
    for (const [entry, reason, field] of wrong) {
      const batch = { projectId, executions: [good, { ...good, ...entry }, good] };
      const fields = [`executions[1].${field}`];
      await assert.rejects(executions.batchCreateExecutions(batch), { reason, fields }, field);
    }
    const input = { data: new Uint8Array(860_000) };
    const large = { projectId, executions: [1, 2, 3, 4].map(() => ({ ...good, input })) };
    await assert.rejects(executions.batchCreateExecutions(large), {
      reason: 'CONTENT_TOO_LARGE',
      fields: ['executions'],
    });
    assert.deepEqual((await executions.listExecutions({ projectId })).executions, []);
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
    // Runs start at whole microseconds, so that a nanosecond later is after the run.
    const nanos = (minute: number, more: number) => ({ ...at(minute), nanos: more });
    assert.deepEqual(await list({ startedAfter: nanos(2, 1), startedBefore: nanos(4, 1) }), [4, 3]);
    assert.deepEqual(
      await list({ startedAfter: { ...nanos(2, 999_999_999), seconds: at(2).seconds - 1n } }),
      [5, 4, 3, 2],
    );
    const { nextPageToken } = await executions.listExecutions({ projectId, pageSize: 1 });
    await assert.rejects(executions.listExecutions({ projectId, agentType: 'a', pageToken: nextPageToken }), {
      reason: 'INVALID_PAGE_TOKEN',
    });
    await assert.rejects(executions.listExecutions({ projectId }, { actor: await newUser(service) }), {
      reason: 'PROJECT_NOT_FOUND',
    });
  });
});
