import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { Client } from 'pg';
import { z } from 'zod';
import { tenantTables } from '../src/audit/isolation/database.ts';
import { type PlanNode, planFaults } from '../src/audit/isolation/plan.ts';
import { createDatabase, type Database } from '../src/db/pool.ts';
import { read, sql } from '../src/db/statement.ts';
import { EXAMPLES, newWorld } from './support/examples.ts';
import { createTestDatabase } from './support/postgres.ts';
import { useService } from './support/service.ts';

const service = await useService();
const { db } = service;

const connect = async (url: string, t: { after: (f: () => Promise<void>) => void }): Promise<Client> => {
  const client = new Client({ connectionString: url });
  await client.connect();
  t.after(() => client.end());
  return client;
};

const fill = async () => {
  const world = await newWorld(service);
  for (const name of [
    'DocumentService/AppendVersion',
    'AgentExecutionService/CreateExecution',
    'ExportService/CreateExport',
  ]) {
    const { request, options } = (await EXAMPLES[name]?.(world)) ?? { request: {}, options: {} };
    if (name.startsWith('Doc')) await service.documents.appendVersion(request, options);
    else if (name.startsWith('Agent')) await service.executions.createExecution(request, options);
    else await service.exports.createExport(request, options);
  }
  return world;
};

describe('isolation in the database', () => {
  let mine: Awaited<ReturnType<typeof fill>>;
  let theirs: Awaited<ReturnType<typeof fill>>;
  before(async () => {
    mine = await fill();
    theirs = await fill();
  });

  it('leaves the tables of the definer functions to those alone', async (t) => {
    const app = await connect(db.appUrl, t);
    for (const table of ['requests', 'purges', 'erasures']) {
      await assert.rejects(app.query(`select from ${table}`), { code: '42501' }, table);
    }
  });

  it('refuses a row that points into another project', async (t) => {
    const owner = await connect(db.ownerUrl, t);
    const execution = (
      await owner.query('select id from jeex.agent_executions where project_id = $1 limit 1', [theirs.projectId])
    ).rows[0].id;
    await assert.rejects(
      owner.query('update jeex.document_versions set execution_id = $1 where project_id = $2', [
        execution,
        mine.projectId,
      ]),
      { code: '23503' },
    );
  });

  describe('a query that forgot its project', () => {
    const forgetful = read({
      name: 'test.forgetful',
      need: 'member',
      params: {},
      row: z.object({ project_id: z.string(), content: z.string() }),
      sql: () => sql.fragment`select b.project_id, b.content from document_bodies b`,
    });
    let app: Database;
    before(async () => {
      app = await createDatabase({ url: db.appUrl, size: 1 });
    });

    it('sees its caller’s project alone, call after call on one connection', async (t) => {
      t.after(() => app.end());
      for (const world of [mine, theirs, mine]) {
        const rows = await app.run(forgetful, { project: world.projectId, actor: world.viewer });
        assert.ok(rows.length > 0);
        assert.ok(rows.every(({ project_id }) => project_id === world.projectId));
      }
    });

    const BATCH = `select asked.place, fenced.project_id
      from unnest($1::uuid[], $2::uuid[]) with ordinality as asked (project, actor, place)
      cross join lateral enter_project(asked.project, asked.actor, 'member') as scope
      left join lateral (
        select * from (select b.project_id from document_bodies b) as query FENCE
      ) as fenced on true`;
    const FENCE = 'where scope.project_id is not null offset 0';

    const foreign = async (client: Client, fence: string) => {
      const projects = [mine.projectId, theirs.projectId, mine.projectId, theirs.projectId];
      const actors = [mine.viewer, theirs.viewer, mine.stranger, theirs.viewer];
      const { rows } = await client.query(BATCH.replace('FENCE', fence), [projects, actors]);
      const allowed = (place: string) => (place === '3' ? null : projects[Number(place) - 1]);
      return rows.filter(({ place, project_id }) => project_id !== allowed(place) && project_id !== null).length;
    };

    it('leaks nothing in a batch of several callers, a stranger among them', async (t) => {
      const client = await connect(db.appUrl, t);
      assert.equal(await foreign(client, FENCE), 0);
    });

    it('leaks in the batch without the fence: the check above can fail', async (t) => {
      const client = await connect(db.appUrl, t);
      await client.query('set enable_memoize = on; set enable_material = on');
      assert.notEqual(await foreign(client, ''), 0);
    });

    it('leaks nothing after another project was entered in the same transaction', async (t) => {
      const client = await connect(db.appUrl, t);
      await client.query('begin');
      await client.query(`select * from enter_project($1, $2, 'member')`, [theirs.projectId, theirs.viewer]);
      const { rows } = await client.query(forgetful.text, [mine.projectId, mine.viewer]);
      await client.query('commit');
      assert.ok(rows.length > 0 && rows.every(({ project_id }) => project_id === mine.projectId));
      const refused = await client.query(forgetful.text, [mine.projectId, mine.stranger]);
      assert.deepEqual(
        [refused.rows.length, refused.rows[0].verdict, refused.rows[0].project_id],
        [1, 'PROJECT_NOT_FOUND', null],
      );
    });

    it('is stopped by the service too, where the database would answer another project’s row', async (t) => {
      const lying = read({
        name: 'test.lying',
        need: 'member',
        params: {},
        row: z.object({ project_id: z.string() }),
        sql: () => sql.fragment`select '018f0000-0000-7000-8000-00000000000f'::uuid as project_id`,
      });
      const pool = await createDatabase({ url: db.appUrl, size: 1 });
      t.after(() => pool.end());
      await assert.rejects(pool.run(lying, { project: mine.projectId, actor: mine.viewer }), { reason: 'INTERNAL' });
    });
  });

  describe('the walk over a plan', () => {
    const explain = async (client: Client, text: string): Promise<PlanNode> =>
      (await client.query(`explain (generic_plan, format json) ${text}`)).rows[0]['QUERY PLAN'][0].Plan;

    const BAD: Readonly<Record<string, string>> = {
      'a tenant table without the scope': 'select * from document_bodies',
      'a table joined beside the scope': `select * from enter_project($1::uuid, $2::uuid, 'member') as scope, document_bodies b where b.sha256 = $3::bytea`,
      'an uncorrelated aggregate inside the fence': `select * from enter_project($1::uuid, $2::uuid, 'member') as scope
        left join lateral (select (select count(*) from document_bodies) as n where scope.project_id is not null offset 0) f on true`,
      'a hashed sub-select': `select * from enter_project($1::uuid, $2::uuid, 'member') as scope
        left join lateral (select v.version from document_versions v where v.project_id = scope.project_id
          and v.content_sha256 not in (select b.sha256 from document_bodies b) and scope.project_id is not null offset 0) f on true`,
      'a hash that does not depend on the scope': `select * from enter_project($1::uuid, $2::uuid, 'member') as scope
        left join lateral (select v.version, b.size_bytes from document_versions v join document_bodies b on b.sha256 = v.content_sha256
          where scope.project_id is not null offset 0) f on true`,
    };
    for (const [what, text] of Object.entries(BAD)) {
      it(`refuses ${what}`, async (t) => {
        const client = await connect(db.appUrl, t);
        await client.query('set enable_nestloop = on; set enable_mergejoin = off');
        if (what.startsWith('a hash')) await client.query('set enable_nestloop = off');
        const tenant = new Set((await tenantTables(client)).map(({ name }) => name));
        assert.notDeepEqual(planFaults(await explain(client, text), tenant), []);
      });
    }
  });

  it('lets the owner backfill rows and validate a foreign key, which forced row-level security would hide', async (t) => {
    const copy = await useOwnerCopy(t);
    const backfill = () => copy.query(`update jeex.documents set search_version = 0`);
    assert.equal((await backfill()).rowCount, 1);
    await copy.query(`alter table jeex.documents add column run uuid default gen_random_uuid();
      alter table jeex.documents add constraint run_known foreign key (project_id, run) references jeex.agent_executions not valid`);
    const validate = () => copy.query('alter table jeex.documents validate constraint run_known');
    await assert.rejects(validate(), { code: '23503' });
    await copy.query('drop policy maintenance on jeex.documents');
    assert.equal(
      (await backfill()).rowCount,
      0,
      'without its policy the owner sees nothing: the checks above can fail',
    );
    await validate();
  });
});

const useOwnerCopy = async (t: { after: (f: () => Promise<void>) => void }): Promise<Client> => {
  const copy = await createTestDatabase();
  const owner = await connect(copy.ownerUrl, t);
  t.after(() => copy.drop());
  await owner.query(`insert into jeex.projects (id, name, language) values ('018f0000-0000-7000-8000-000000000002', 'P', 'en');
    insert into jeex.documents (project_id, document_type, head_version) values ('018f0000-0000-7000-8000-000000000002', 'idea', 1)`);
  return owner;
};
