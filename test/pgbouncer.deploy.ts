import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { z } from 'zod';
import { openClient } from '../src/db/connection.ts';
import { createDatabase } from '../src/db/pool.ts';
import { current } from '../src/db/prepared.ts';
import { sql, statement } from '../src/db/statement.ts';
import { MigrationRefused } from '../src/migrator/errors.ts';
import { down, migrate, up } from '../src/migrator/migrate.ts';
import { getProject, getUsage } from '../src/projects/sql.ts';
import { startPooled } from './support/pooled.ts';
import { connectAs, databaseOn, useOwner } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';
import { NO_DOCKER } from './support/stack.ts';
import { until } from './support/until.ts';

/** Connections of the service to PgBouncer. */
const POOL_SIZE = 8;
/** Connections of PgBouncer to PostgreSQL, at most: its default_pool_size. */
const SERVERS = 20;
const CALLERS = 40;
const CALLS = 600;

/** What the server connection that runs it has prepared, and how often each statement ran there; slowly, so that many run at once. */
const prepared = statement({
  name: 'test.prepared',
  params: {},
  row: z.object({ pid: z.number(), statement: z.string(), runs: z.bigint() }),
  sql: () => sql.fragment`
select pg_backend_pid() as pid, s.statement, s.generic_plans + s.custom_plans as runs
from (select pg_sleep(0.05) as nap offset 0) as n, pg_prepared_statements as s`,
});

describe('prepared statements through PgBouncer', { skip: NO_DOCKER }, async () => {
  const pooled = await startPooled();
  after(pooled.stop);
  const db = databaseOn(pooled, 'jeex');
  await migrate(db.ownerUrl, { mode: 'auto' });
  const service = await useService({ db, env: { POOL_SIZE: `${POOL_SIZE}` } });
  const { projectId, viewer } = await newProject(service);
  const monitor = await openClient(pooled.consoleUrl, 'test');
  after(() => monitor.end());

  const readProject = async () => (await service.projects.getProject({ id: projectId }, { actor: viewer })).project;
  /** Each of these is a statement of its own, which no callers share. */
  const readUsage = () => service.projects.getProjectUsage({ projectId }, { actor: viewer });
  const callMany = async () => {
    for (let done = 0; done < CALLS; done += CALLERS) {
      await Promise.all(Array.from({ length: CALLERS }, readUsage));
    }
  };
  const show = async (what: string) => {
    const { rows } = await monitor.query(`show ${what}`);
    return rows.filter(({ database }) => database === 'jeex');
  };

  it('are sent to PostgreSQL once for each of its connections, and bound by each call', async () => {
    const bindsBefore = Number((await show('stats_totals'))[0].bind_count);
    await callMany();
    const [{ client_parse_count: asked, server_parse_count: sent, bind_count: binds }] = await show('stats_totals');
    const servers = (await show('servers')).filter(({ user }) => user === 'jeex_app');
    assert.ok(servers.length > 1, 'PgBouncer has several connections to PostgreSQL');
    assert.ok(Number(binds) - bindsBefore >= CALLS, `${binds} binds`);
    assert.ok(Number(asked) < CALLS / 2, `the service has sent ${asked} statements to be prepared`);
    const kept = servers.reduce((sum, { prepared_statements }) => sum + Number(prepared_statements), 0);
    assert.ok(Number(sent) <= kept, `${sent} statements were prepared, and ${kept} are`);
  });

  it('are there once in each session of PostgreSQL, which runs them again and again', async () => {
    await callMany();
    const pool = await createDatabase({ url: db.appUrl, size: SERVERS });
    const runs = new Map<number, bigint[]>();
    await until(async () => {
      const sessions = await Promise.all(Array.from({ length: SERVERS }, () => pool.run(prepared, {})));
      for (const rows of sessions) {
        const own = rows.filter((row) => row.statement === getUsage.text);
        for (const { pid } of rows)
          runs.set(
            pid,
            own.map((row) => row.runs),
          );
      }
      const servers = (await show('servers')).filter(({ user }) => user === 'jeex_app');
      return servers.every(({ remote_pid }) => runs.has(remote_pid));
    }, 'every session has answered');
    await pool.end();
    const counts = [...runs.values()];
    assert.ok(
      counts.every(({ length }) => length <= 1),
      'no session has it twice',
    );
    const total = counts.flat().reduce((sum, each) => sum + each, 0n);
    assert.ok(total >= CALLS, `${total} runs of ${counts.flat().length} prepared statements`);
  });

  it('survive a migration that changes what they answer, under load, and no caller notices', async (t) => {
    const owner = await useOwner(db);
    const { shared } = getProject;
    assert.ok(shared);
    const asked = { project: [projectId], actor: [viewer], show_deleted: [false] };
    const { name = '', sql: text, values } = shared.token(asked as never);

    const errors: unknown[] = [];
    let answered = 0;
    let over = false;
    const call = async () => {
      while (!over) {
        try {
          assert.equal((await readProject())?.name, 'A project');
          answered += 1;
        } catch (error) {
          errors.push(error);
        }
      }
    };
    const callers = Array.from({ length: CALLERS }, call);
    t.after(() => Promise.all(callers));
    try {
      for (const type of ['varchar', 'text', 'varchar', 'text']) {
        const plain = await connectAs(db.urlAs('app'));
        // As any client would send it, in a session of its own.
        const asAnyClient = () => plain.query({ name, text, values: [...values] });
        await asAnyClient();
        const known = current({ name, text });
        await owner.query(`alter table projects alter column name type ${type}`);
        await assert.rejects(asAnyClient(), { code: '0A000' });
        await until(() => current({ name, text }).text !== known.text || errors.length > 0, 'the service meets it');
        assert.deepEqual(errors, []);
        const before = answered;
        await until(() => answered > before + 2 * CALLERS, 'calls go on');
      }
    } finally {
      over = true;
    }
    assert.deepEqual(errors, []);
  });
});

describe('a migrator before PgBouncer', { skip: NO_DOCKER }, async () => {
  const pooled = await startPooled();
  after(pooled.stop);
  const db = databaseOn(pooled, 'jeex');
  await migrate(db.ownerUrl, { mode: 'auto' });

  it('is refused whatever changes something, and may look', async () => {
    const pooledOnly = (error: unknown) =>
      error instanceof MigrationRefused && error.problems.every(({ code }) => code === 'POOLED');
    await assert.rejects(up(db.appUrl), pooledOnly);
    await assert.rejects(down(db.appUrl, 0), pooledOnly);
    assert.deepEqual((await migrate(db.appUrl, { mode: 'check' })).steps, []);
  });
});
