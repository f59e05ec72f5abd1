import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { z } from 'zod';
import { createDatabase, type Database } from '../src/db/pool.ts';
import { pointRead, sql } from '../src/db/statement.ts';
import { getVersion } from '../src/documents/sql.ts';
import { getProject } from '../src/projects/sql.ts';
import { createMeasurements, type Measurements } from '../src/telemetry/measurements.ts';
import { connectAs } from './support/postgres.ts';
import { newProject, newUser, useService } from './support/service.ts';
import { until } from './support/until.ts';

const service = await useService();
const { db, documents } = service;
const admin = await connectAs(db.adminUrl);

/** Fails for the entry that asks for nothing, and waits as long as an entry asks for. */
const probe = pointRead({
  name: 'test.probe',
  need: 'reader',
  params: { number: 'int4', seconds: 'float8' },
  row: z.object({ quotient: z.int() }),
  sql: (p) => sql.fragment`
select p.id as project_id, 12 / ${p.number} as quotient from projects p, pg_sleep(${p.seconds}) where p.id = scope.project_id`,
});

const lying = pointRead({
  name: 'test.lying_point',
  need: 'reader',
  params: {},
  row: z.object({ project_id: z.string() }),
  sql: () => sql.fragment`select '018f0000-0000-7000-8000-00000000000f'::uuid as project_id`,
});

const SMALL = 'small';
const LARGE = 'x'.repeat(200_000);

interface World {
  readonly project: string;
  readonly actor: string;
}

const newWorld = async (): Promise<World> => {
  const { projectId: project, owner: actor } = await newProject(service);
  const append = (documentType: string, content: string) =>
    documents.appendVersion({ projectId: project, documentType, content }, { actor });
  await append('small', SMALL);
  await append('large', LARGE);
  return { project, actor };
};

/** A pool of its own, and how often each statement has run on it. */
const open = async (t: { after: (end: () => Promise<void>) => void }, size = 4) => {
  const measurements: Measurements = createMeasurements();
  const observer = { measurements, place: {}, slowMs: 60_000, onSlow: () => {} };
  const pool = await createDatabase({ url: db.appUrl, size, observer });
  t.after(() => pool.end());
  const ran = (name: string): number =>
    [...measurements.statements.values()].reduce((sum, one) => sum + (one.name === name ? one.durations.count : 0), 0);
  return { pool, ran };
};

const version = (type: string, { project, actor }: World) => ({
  project,
  actor,
  document_type: type,
  version: 0,
  full: true,
});
const settled = <T>(answers: readonly Promise<T>[]) => Promise.allSettled(answers);
const outcomeOf = <T>(result: PromiseSettledResult<T>): unknown =>
  result.status === 'fulfilled' ? result.value : result.reason.reason;

describe('point reads that wait at the same moment', () => {
  let mine: World;
  let theirs: World;
  before(async () => {
    [mine, theirs] = [await newWorld(), await newWorld()];
  });

  it('are one statement; alone a call is one of its own', async (t) => {
    const { pool, ran } = await open(t);
    const params = { project: mine.project, actor: mine.actor, show_deleted: false };
    await pool.run(getProject, params);
    assert.deepEqual([ran('projects.get'), ran('projects.get_shared')], [1, 0]);
    const rows = await Promise.all(Array.from({ length: 16 }, () => pool.run(getProject, params)));
    assert.ok(rows.every(([row]) => row?.id === mine.project));
    assert.deepEqual([ran('projects.get'), ran('projects.get_shared')], [1, 1]);
  });

  it('are answered each by its own entry, in whichever order they were asked', async (t) => {
    const { pool } = await open(t);
    const stranger = await newUser(service);
    const nobody = '018f0000-0000-7000-8000-00000000000e';
    const asked: readonly (readonly [World, string])[] = [
      [mine, mine.project],
      [theirs, theirs.project],
      [{ project: theirs.project, actor: mine.actor }, 'PROJECT_NOT_FOUND'],
      [{ project: mine.project, actor: stranger }, 'PROJECT_NOT_FOUND'],
      [mine, mine.project],
      [{ project: nobody, actor: mine.actor }, 'PROJECT_NOT_FOUND'],
      [{ project: mine.project, actor: nobody }, 'ACTOR_UNKNOWN'],
      [theirs, theirs.project],
    ];
    const answers = await settled(asked.map(([world]) => pool.run(getProject, { ...world, show_deleted: false })));
    const seen = answers.map((answer) => (answer.status === 'fulfilled' ? answer.value[0]?.id : outcomeOf(answer)));
    assert.deepEqual(
      seen,
      asked.map(([, expected]) => expected),
    );
  });

  it('leave out what is too large to be waited for, and read it apart', async (t) => {
    const { pool, ran } = await open(t);
    const types = ['small', 'large', 'none', 'small', 'large'];
    const answers = await Promise.all(types.map((type) => pool.run(getVersion, version(type, mine))));
    assert.deepEqual(
      answers.map(([row]) => row && 'content' in row && row.content),
      [SMALL, LARGE, undefined, SMALL, LARGE],
    );
    assert.deepEqual([ran('documents.get_shared'), ran('documents.get')], [1, 2]);
  });

  it('fail alone where one entry fails', async (t) => {
    const { pool } = await open(t);
    const numbers = [3, 0, 4];
    const answers = await settled(numbers.map((number) => pool.run(probe, { ...mine, number, seconds: 0 })));
    assert.deepEqual(answers.map(outcomeOf), [[{ quotient: 4 }], 'INTERNAL', [{ quotient: 3 }]]);
  });

  it('are not answered with rows of another project', async (t) => {
    const { pool } = await open(t);
    const answers = await settled([mine, theirs].map((world) => pool.run(lying, world)));
    assert.deepEqual(answers.map(outcomeOf), ['INTERNAL', 'INTERNAL']);
  });

  it('let callers leave, and are cancelled when the last one has gone', async (t) => {
    const { pool, ran } = await open(t);
    const leavers = [new AbortController(), new AbortController()];
    const answers = leavers.map((leaver, i) =>
      pool.run(probe, { ...mine, number: 1, seconds: i === 0 ? 0 : 60 }, { signal: leaver.signal }),
    );
    const ended = settled(answers);
    const running = async () =>
      Number(
        (
          await admin.query(
            `select count(*) from pg_stat_activity where query like '%pg_sleep(asked%' and state = 'active' and pid <> pg_backend_pid()`,
          )
        ).rows[0].count,
      );
    await until(async () => (await running()) === 1, 'they run');
    leavers[0]?.abort(new Error('gone'));
    await assert.rejects(answers[0] as Promise<unknown>, { reason: 'DEADLINE' });
    assert.equal(await running(), 1, 'the other one is still served');
    leavers[1]?.abort(new Error('gone too'));
    assert.deepEqual((await ended).map(outcomeOf), ['DEADLINE', 'DEADLINE']);
    await until(async () => (await running()) === 0, 'the statement was cancelled');
    await until(() => pool.state().acquired === 0, 'its place is free');
    assert.equal(ran('test.probe_shared'), 1);
  });

  it('go on beside a statement that hangs', async (t) => {
    const { pool } = await open(t);
    const leaver = new AbortController();
    const stuck = Array.from({ length: 3 }, () =>
      pool.run(probe, { ...mine, number: 1, seconds: 60 }, { signal: leaver.signal }),
    );
    const ended = settled(stuck);
    await until(() => pool.state().acquired > 0, 'it hangs');
    const quick: Database['run'] = pool.run;
    assert.deepEqual(await quick(probe, { ...mine, number: 2, seconds: 0 }), [{ quotient: 6 }]);
    leaver.abort(new Error('enough'));
    await ended;
  });
});
