import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createDatabase } from '../src/db/pool.ts';
import { withDatabase } from '../src/db/roles.ts';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { createLog } from '../src/log.ts';
import { startSweeper } from '../src/sweeper.ts';
import { changeKinds, newAgent, startRun } from './support/executions.ts';
import { useOwner } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const { executions, projects } = service;
const owner = await useOwner(service.db);
const log = createLog('silent');
const KEPT = { payloadDays: 90, exportDays: 30, changeDays: null };

/** Asks again until the answer is there. @throws Error after 10 s, the contract's bound */
const until = async <R>(ask: () => Promise<R | null | undefined | false>): Promise<R> => {
  for (const end = Date.now() + 10_000; Date.now() < end; await sleep(20)) {
    const answer = await ask();
    if (answer) return answer;
  }
  throw new Error('nothing came within 10 s');
};

const inStatus = (projectId: string, id: string, status: ExecutionStatus) =>
  until(async () => {
    const { execution } = await executions.getExecution({ projectId, id });
    return execution?.status === status && execution;
  });

/** The last change of a project: its kind, caller, actor, and whether its correlation is the resource's own. */
const lastChange = async (projectId: string, table: 'agent_executions' | 'exports') => {
  const { rows } = await owner.query(
    `select c.kind, c.caller, c.actor_id, c.correlation_id = r.correlation_id as own from changes c
     join ${table} r on r.project_id = c.project_id and r.id = c.resource_id
     where c.project_id = $1 order by c.revision desc limit 1`,
    [projectId],
  );
  return rows[0];
};

describe('the sweeper of a service', () => {
  it('times a run out within 10 s of its lease', async () => {
    const { projectId, editor } = await newProject(service);
    const { id } = await startRun(service, projectId, { actor: editor });
    await owner.query(`update agent_executions set lease_expire_time = now() where id = $1`, [id]);
    const { TIMED_OUT } = ExecutionStatus;
    const execution = await inStatus(projectId, id, TIMED_OUT);
    assert.ok(execution.completeTime && execution.duration && !execution.leaseExpireTime);
    assert.deepEqual(await lastChange(projectId, 'agent_executions'), {
      kind: 'EXECUTION_TIMED_OUT',
      caller: 'jeex-persistence',
      actor_id: null,
      own: true,
    });
  });
});

describe('a sweeper', () => {
  it('cancels what nobody started for 24 hours, and nothing younger', async (t) => {
    const { projectId } = await newProject(service);
    const create = async () =>
      (await executions.createExecution({ projectId, agentType: newAgent() })).execution?.id ?? '';
    const [old, young] = [await create(), await create()];
    const age = `update agent_executions set create_time = now() - $2::interval where id = $1`;
    await owner.query(age, [young, '23 hours 59 minutes']);
    await owner.query(age, [old, '24 hours']);
    await sweep(t);
    const execution = await inStatus(projectId, old, ExecutionStatus.CANCELLED);
    assert.match(execution.cancelReason, /24 hours/);
    assert.equal((await lastChange(projectId, 'agent_executions')).kind, 'EXECUTION_CANCELLED');
    assert.equal((await executions.getExecution({ projectId, id: young })).execution?.status, ExecutionStatus.PENDING);
  });

  it('gives an export back whose worker has gone', async (t) => {
    const { projectId } = await newProject(service);
    await owner.query(
      `insert into exports (project_id, status, manifest, manifest_entries, caller, correlation_id, expire_time, lease_token,
         lease_expire_time, project_revision, created_revision)
       values ($1, 'PROCESSING', '[]', 0, 'test', gen_random_uuid(), now() + interval '1 hour', gen_random_uuid(), now(), 1, 1)`,
      [projectId],
    );
    await sweep(t);
    await until(async () => {
      const { rows } = await owner.query('select status from exports where project_id = $1', [projectId]);
      return rows[0].status === 'PENDING';
    });
    const change = await lastChange(projectId, 'exports');
    assert.deepEqual([change.kind, change.caller, change.own], ['EXPORT_RETURNED', 'jeex-persistence', true]);
  });

  it('purges a project when its time has come, and not before', async (t) => {
    const [due, later] = [await newProject(service), await newProject(service)];
    for (const { projectId } of [due, later]) {
      await startRun(service, projectId);
      await projects.deleteProject({ id: projectId });
    }
    await owner.query('update projects set purge_time = now() where id = $1', [due.projectId]);
    await sweep(t);
    await until(async () => {
      const { rows } = await owner.query('select caller from purges where project_id = $1', [due.projectId]);
      return rows[0]?.caller === 'jeex-persistence';
    });
    const { rows } = await owner.query('select id from projects where id in ($1, $2)', [
      due.projectId,
      later.projectId,
    ]);
    assert.deepEqual(rows, [{ id: later.projectId }]);
    await projects.undeleteProject({ id: later.projectId });
  });

  it('goes on to the next project when one is held by somebody, and comes back to it', async (t) => {
    const alone = await useService();
    const [held, free] = [await newProject(alone), await newProject(alone)];
    await startRun(alone, held.projectId);
    await startRun(alone, free.projectId);
    // Its own sweeper would be at the other project meanwhile.
    await alone.stop();
    const [holder, observer] = [await useOwner(alone.db), await useOwner(alone.db)];
    await observer.query('update agent_executions set lease_expire_time = now()');
    await holder.query('begin');
    await holder.query('select from projects where id = $1 for update', [held.projectId]);
    const timedOut = (projectId: string) =>
      until(async () => (await changeKinds(observer, projectId)).at(-1) === 'EXECUTION_TIMED_OUT');
    await sweep(t, alone.db.appUrl);
    await timedOut(free.projectId);
    assert.equal((await changeKinds(observer, held.projectId)).at(-1), 'EXECUTION_CREATED');
    await holder.query('rollback');
    await timedOut(held.projectId);
  });

  it('shares 300 lost leases in 30 projects with others, each ended once', async (t) => {
    const batch = Array.from({ length: 10 }, () => ({
      agentType: newAgent(),
      status: ExecutionStatus.RUNNING,
      leaseSeconds: 3600,
    }));
    const ids: string[] = [];
    for (let index = 0; index < 30; index += 1) {
      const { projectId } = await newProject(service);
      const made = await executions.batchCreateExecutions({ projectId, executions: batch });
      ids.push(...made.executions.map(({ id }) => id));
    }
    await owner.query('update agent_executions set lease_expire_time = now() where id = any ($1)', [ids]);
    await Promise.all([sweep(t), sweep(t), sweep(t)]);
    const count = `select count(*)::int as n from changes where kind = 'EXECUTION_TIMED_OUT' and resource_id = any ($1)`;
    await until(async () => (await owner.query(count, [ids])).rows[0].n === ids.length);
  });

  it('logs a failure and tries again', async (t) => {
    const lines: string[] = [];
    const failing = createLog('warn', { write: (line: string) => void lines.push(line) });
    const db = await createDatabase({ url: withDatabase(service.db.appUrl, 'nowhere'), size: 1 });
    const sweeper = startSweeper({ db, changed: () => {}, retention: KEPT, log: failing, intervalMs: 10 });
    t.after(async () => {
      await sweeper.stop();
      await db.end();
    });
    await until(async () => lines.length > 8);
    assert.match(lines[0] ?? '', /a chore of the sweeper failed/);
  });
});

describe('a purge', () => {
  it('finds by an index what refers to the rows it removes, so that its time grows with the project and no faster', async () => {
    const { rows } = await owner.query(
      `select c.conname from pg_constraint c
       where c.contype = 'f' and c.connamespace = 'jeex'::regnamespace and c.confrelid <> 'users'::regclass
         and not exists (select from pg_index i, cardinality(c.conkey) as n
                         where i.indrelid = c.conrelid and (i.indkey::int2[])[0:n - 1] @> c.conkey
                           and (i.indkey::int2[])[0:n - 1] <@ c.conkey)`,
    );
    assert.deepEqual(rows, []);
  });
});

/** Runs a quick sweeper for the length of a test. */
const sweep = async (t: { after(done: () => Promise<void>): void }, url = service.db.appUrl): Promise<void> => {
  const db = await createDatabase({ url, size: 2 });
  const sweeper = startSweeper({ db, changed: () => {}, retention: KEPT, log, intervalMs: 20 });
  t.after(async () => {
    await sweeper.stop();
    await db.end();
  });
};
