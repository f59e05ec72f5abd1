import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { z } from 'zod';
import { registry, sql, statement } from '../src/db/statement.ts';
import { createLog } from '../src/log.ts';
import { createPlans, type Plans } from '../src/monitor/plans.ts';
import '../src/service.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { until } from './support/until.ts';

const service = [...registry.keys()];
statement({
  name: 'test.plants',
  params: { crop: 'text' },
  row: z.object({}),
  sql: (p) => sql.fragment`select 1 as one where ${p.crop} = planted('a')`,
});
statement({
  name: 'test.absent',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`select 1 as one from absent`,
});

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const owner = await useOwner(db);
const admin = await connectAs(db.adminUrl);

const usePlans = (url = proxy.url, log = createLog('silent')): Plans => {
  const plans = createPlans({ url, log });
  after(() => plans.end());
  return plans;
};

/** A log, and which statements it tells were not explained, with their SQLSTATEs. */
const useLog = () => {
  const lines: { statement: string; err: { code: string } }[] = [];
  const log = createLog('debug', { write: (line) => void lines.push(JSON.parse(line)) });
  return { log, told: () => lines.map(({ statement, err }) => [statement, err.code]) };
};

const sessions = async (): Promise<number> => {
  const { rows } = await admin.query(
    `select count(*)::int as n from pg_stat_activity
     where datname = current_database() and application_name = 'jeex-persistence plans'`,
  );
  return rows[0].n;
};

/** How many rows there are of anything, by table. */
const rowCounts = async (): Promise<unknown[]> => {
  const { rows } = await admin.query(
    `select c.relname::text as name,
       (xpath('/row/n/text()', query_to_xml(format('select count(*) as n from jeex.%I', c.relname), false, true, '')))[1]::text as n
     from pg_class c where c.relnamespace = 'jeex'::regnamespace and c.relkind = 'r' order by 1`,
  );
  return rows;
};

describe('plans', () => {
  it('are had of every statement of the service, by one connection; PostgreSQL tells them apart', async () => {
    const [connections, counts] = [proxy.connections, await rowCounts()];
    const plans = usePlans();
    const found = await Promise.all(service.map((name) => plans.of(name)));
    const ids = new Set<bigint>();
    for (const [at, plan] of found.entries()) {
      assert.match(plan?.text ?? '', /^[A-Z][\w ]+ .*\(cost=/, service[at]);
      if (plan?.queryId) ids.add(plan.queryId);
    }
    assert.equal(ids.size, service.length);
    const append = await plans.of('documents.append');
    assert.match(append?.text ?? '', /append_versions\(ROW\(\$1, /);
    assert.equal(proxy.connections, connections + 1);
    assert.deepEqual(await rowCounts(), counts);
  });

  it('keep no connection open', async () => {
    // A pooler's own stays, under the name of its last client.
    const others = await sessions();
    assert.ok(await usePlans(db.urlAs('app')).of('users.get'));
    await until(async () => (await sessions()) <= others, 'the connection is closed');
  });

  it('are remembered', async () => {
    const plans = usePlans();
    const first = await plans.of('users.get');
    assert.ok(first);
    const { connections } = proxy;
    assert.equal(await plans.of('users.get'), first);
    assert.equal(proxy.connections, connections);
  });

  it('write nothing, whatever PostgreSQL runs to make them', async () => {
    // Constant for a planner, which runs it to know its value.
    await owner.query(`
      create table crops (name text);
      grant insert, select on crops to jeex_app;
      create function plant(crop text) returns text language sql volatile
        begin atomic insert into jeex.crops values (crop) returning name; end;
      create function planted(crop text) returns text language plpgsql immutable
        as $$ begin return jeex.plant(crop); end $$;
      grant execute on function plant, planted to jeex_app;`);
    const { log, told } = useLog();
    assert.equal(await usePlans(proxy.url, log).of('test.plants'), null);
    assert.deepEqual(told(), [['test.plants', '25006']]);
    const { rows } = await owner.query('select * from crops');
    assert.deepEqual(rows, []);
  });

  it('are none of what is no statement of the service, of what does not fit, and of what stays locked', async () => {
    const { log, told } = useLog();
    const plans = usePlans(proxy.url, log);
    await owner.query('begin');
    await owner.query('lock table sealing_keys in access exclusive mode');
    const asked = ['no.such', 'test.absent', 'sealing.keys', 'users.get'].map((name) => plans.of(name));
    const found = await Promise.all(asked);
    await owner.query('rollback');
    assert.deepEqual(
      found.map((plan) => plan !== null),
      [false, false, false, true],
    );
    assert.deepEqual(told(), [
      ['test.absent', '42P01'],
      ['sealing.keys', '55P03'],
    ]);
  });

  it('are none while the database does not answer, or once nobody is there to make them', async () => {
    const plans = usePlans();
    proxy.down = true;
    assert.deepEqual(await Promise.all(['users.get', 'users.list'].map((name) => plans.of(name))), [null, null]);
    proxy.down = false;
    const ended = usePlans();
    const asked = ended.of('users.get');
    await ended.end();
    assert.deepEqual([await asked, await ended.of('users.list')], [null, null]);
  });
});
