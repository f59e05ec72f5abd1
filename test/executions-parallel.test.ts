import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { changeKinds, newAgent } from './support/executions.ts';
import { useOwner } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { executions, projects } = service;
const owner = await useOwner(service.db);

const { RUNNING } = ExecutionStatus;
const COPIES = 50;

describe('claiming', () => {
  it('gives each of 50 runs in 5 projects to one of 20 callers, oldest first for a caller alone', async () => {
    const agentType = newAgent();
    const made: string[] = [];
    const projectIds = await Promise.all([1, 2, 3, 4, 5].map(async () => (await newProject(service)).projectId));
    for (let index = 0; index < 50; index += 1) {
      const projectId = projectIds[index % projectIds.length] ?? '';
      made.push((await executions.createExecution({ projectId, agentType })).execution?.id ?? '');
    }
    const first = await executions.claimExecution({ agentTypes: [newAgent(), agentType] });
    assert.equal(first.execution?.id, made[0]);
    const claimed = [first.execution?.id ?? ''];
    const claimAll = async () => {
      for (;;) {
        const { execution, leaseToken } = await executions.claimExecution({ agentTypes: [agentType] });
        if (execution === undefined) return;
        assert.equal(execution.status, RUNNING);
        assert.ok(leaseToken);
        claimed.push(execution.id);
      }
    };
    await Promise.all(Array.from({ length: 20 }, claimAll));
    assert.deepEqual(claimed.toSorted(), made.toSorted());
    for (const projectId of projectIds) {
      const kinds = await changeKinds(owner, projectId);
      assert.equal(kinds.filter((kind) => kind === 'EXECUTION_STARTED').length, 10);
    }
  });

  it('takes any agent when none is named, and never a deleted project', async () => {
    const [one, other] = [await newProject(service), await newProject(service)];
    const create = async (projectId: string) =>
      (await executions.createExecution({ projectId, agentType: newAgent() })).execution?.id ?? '';
    const [hidden, open] = [await create(one.projectId), await create(other.projectId)];
    await projects.deleteProject({ id: one.projectId });
    const claimed: string[] = [];
    for (;;) {
      const { execution } = await executions.claimExecution({});
      if (execution === undefined) break;
      claimed.push(execution.id);
    }
    assert.ok(claimed.includes(open) && !claimed.includes(hidden));
    await projects.undeleteProject({ id: one.projectId });
    assert.equal((await executions.claimExecution({})).execution?.id, hidden);
  });
});

describe('one request id', () => {
  it('means one effect and one answer, however often it is sent at once', async () => {
    const { projectId, editor } = await newProject(service);
    const options = { actor: editor, timeout: 30_000 };
    const agentType = newAgent();
    const input = { data: Buffer.of(1, 2) };
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
    const nothing = { agentTypes: [agentType], requestId: randomUUID() };
    const none = await same(() => executions.claimExecution(nothing));
    assert.deepEqual([none.execution, none.leaseToken], [undefined, '']);
    const second = (await pending()).execution?.id ?? '';
    assert.deepEqual(await executions.claimExecution(nothing), none);
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
