import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { verifyChain } from '../src/changes/verify.ts';
import { createDatabase, type Database } from '../src/db/pool.ts';
import { retain } from '../src/executions/sql.ts';
import { ChangeKind } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { completedExport } from './support/exports.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService({ db: await useTestDatabase() });
const { projects, executions, exports, changes } = service;
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);

const DAYS = { payload_days: 90, export_days: 30, change_days: null as number | null };

/** Makes a whole pass, whoever else has made one lately. */
const pass = async (days: Partial<typeof DAYS> = {}, most = 200): Promise<number> => {
  await using opened = new AsyncDisposableStack();
  const db: Database = await createDatabase({ url: service.db.appUrl, size: 1 });
  opened.defer(() => db.end());
  await admin.query('update retention set place = null, end_time = null');
  for (let removed = 0; ; ) {
    const [row] = await db.run(retain, { ...DAYS, ...days, most });
    assert.equal(row?.failure, null);
    removed += Number(row?.removed);
    if (!row?.again) return removed;
  }
};

/** A completed run with an input and an output, which began and ended so many days ago. */
const oldRun = async (projectId: string, days: number, ended = days): Promise<string> => {
  const input = { data: Buffer.from('{"q":1}') };
  const { execution, leaseToken } = await executions.createExecution({ projectId, agentType: 'a', input, start: true });
  const made = execution?.id ?? '';
  await executions.completeExecution({ projectId, id: made, leaseToken, output: { data: Buffer.from('{}') } });
  // Its id tells when it was made, so that it gets another one.
  const { rows } = await owner.query('select uuidv7(make_interval(days => $1))::text as id', [-days]);
  const { id } = rows[0];
  const ago = (days: number) => `now() - make_interval(days => ${days})`;
  await owner.query(
    `insert into agent_executions select r.* from agent_executions e, jsonb_populate_record(e, jsonb_build_object(
       'id', $2::uuid, 'create_time', ${ago(days)}, 'start_time', ${ago(days)}, 'complete_time', ${ago(ended)})) as r where e.id = $1`,
    [made, id],
  );
  await owner.query('update execution_payloads set execution_id = $2 where execution_id = $1', [made, id]);
  return id;
};

const payloadsOf = async (id: string): Promise<number> =>
  (await owner.query('select from execution_payloads where execution_id = $1', [id])).rowCount ?? 0;

const oldExport = async (projectId: string, days: number): Promise<string> => {
  const { id } = await completedExport(service, projectId);
  await owner.query(
    `update exports set create_time = now() - make_interval(days => $2 + 1),
       expire_time = now() - make_interval(days => $2) where id = $1`,
    [id, days],
  );
  return id;
};

describe('what is kept for a time only', () => {
  it('is payloads of runs that ended 90 days ago: the runs stay', async () => {
    const { projectId } = await newProject(service);
    const [old, young] = [await oldRun(projectId, 91), await oldRun(projectId, 89)];
    const long = await oldRun(projectId, 100, 1);
    assert.equal(await pass(), 2);
    assert.deepEqual([await payloadsOf(old), await payloadsOf(young), await payloadsOf(long)], [0, 2, 2]);
    const { execution } = await executions.getExecution({ projectId, id: old });
    assert.deepEqual([execution?.id, execution?.input, execution?.output], [old, undefined, undefined]);
    assert.equal(await pass(), 0);
  });

  it('is exports that expired 30 days ago, and the project counts them no longer', async () => {
    const { projectId } = await newProject(service);
    const [old, young] = [await oldExport(projectId, 31), await oldExport(projectId, 29)];
    assert.equal(await pass(), 1);
    await assert.rejects(exports.getExport({ projectId, id: old }), { reason: 'EXPORT_NOT_FOUND' });
    assert.equal((await exports.getExport({ projectId, id: young })).export?.id, young);
    // What was told by the export is told by its change from now on.
    const created = (await changes.listChanges({ projectId })).changes.find(({ resourceId }) => resourceId === old);
    const { items } = await changes.getTimeline({ projectId, correlationId: created?.correlationId ?? '' });
    const kinds = items.map(({ item }) => (item.case === 'change' ? item.value.kind : item.case));
    assert.deepEqual(kinds, [ChangeKind.EXPORT_CREATED]);
    const { usage } = await projects.getProjectUsage({ projectId });
    assert.equal(usage?.exports, 1n);
  });

  it('is changes only where a deployment wants that; cursors before them are told so, and the chain stays proven', async () => {
    const { projectId } = await newProject(service);
    for (let i = 0; i < 5; i++) await oldExport(projectId, 1);
    const age = `update changes set create_time = now() - interval '400 days' where project_id = $1 and revision <= 4`;
    await owner.query(age, [projectId]);
    const before = await changes.listChanges({ projectId });
    assert.equal(await pass(), 0);
    assert.deepEqual(await changes.listChanges({ projectId }), before);
    assert.equal(await pass({ change_days: 365 }, 3), 4);
    await assert.rejects(changes.listChanges({ projectId, afterRevision: 1n }), { reason: 'REVISION_COMPACTED' });
    const kept = await changes.listChanges({ projectId, afterRevision: 4n });
    assert.equal(kept.changes[0]?.revision, 5n);
    await using opened = new AsyncDisposableStack();
    const db = await createDatabase({ url: service.db.appUrl, size: 1 });
    opened.defer(() => db.end());
    assert.deepEqual((await verifyChain(db, projectId, { kept: new Map() })).verdict.faults, []);
  });

  it('goes in batches, and what one pass has begun another process ends', async () => {
    const { projectId } = await newProject(service);
    for (let i = 0; i < 3; i++) await oldRun(projectId, 100);
    assert.equal(await pass({}, 2), 6);
  });

  it('is not younger than a day, whoever asks for it', async () => {
    const { projectId } = await newProject(service);
    const [run, exported] = [await oldRun(projectId, 0), await oldExport(projectId, 0)];
    const before = await changes.listChanges({ projectId });
    await pass({ payload_days: 0, export_days: 0, change_days: 0 });
    assert.equal(await payloadsOf(run), 2);
    assert.equal((await exports.getExport({ projectId, id: exported })).export?.id, exported);
    assert.deepEqual(await changes.listChanges({ projectId }), before);
  });

  it('is looked for once an hour, by one of the replicas, and a look that finds nothing writes nothing', async () => {
    await pass();
    const lsn = async () => (await admin.query('select pg_current_xact_id_if_assigned(), xmin from retention')).rows;
    const before = await lsn();
    await using opened = new AsyncDisposableStack();
    const db = await createDatabase({ url: service.db.appUrl, size: 2 });
    opened.defer(() => db.end());
    const rows = await Promise.all([1, 2].map(() => db.run(retain, { ...DAYS, most: 10 })));
    assert.deepEqual(
      rows.map(([row]) => row?.again),
      [false, false],
    );
    assert.deepEqual(await lsn(), before);
    await admin.query(`update retention set end_time = now() - interval '61 minutes'`);
    const [again] = await db.run(retain, { ...DAYS, most: 10 });
    assert.equal(again?.again, false);
    const { rows: seen } = await admin.query(`select end_time > now() - interval '1 minute' as now from retention`);
    assert.deepEqual(seen, [{ now: true }]);
  });
});
