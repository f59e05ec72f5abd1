import assert from 'node:assert/strict';
import { after, suite, test } from 'node:test';
import type { Client } from 'pg';
import { z } from 'zod';
import { createDatabase } from '../src/db/pool.ts';
import { sql, statement } from '../src/db/statement.ts';
import { createLog } from '../src/log.ts';
import { createAlerts } from '../src/monitor/evaluate.ts';
import { startMonitor } from '../src/monitor/monitor.ts';
import { poolerLook } from '../src/monitor/pooler.ts';
import { createSession } from '../src/monitor/session.ts';
import { configuredRules, parseAlerts } from '../src/monitor/thresholds.ts';
import { createHealth } from '../src/rpc/health.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';
import { type Alerting, useAlerting } from './support/alerting.ts';
import { lockProject } from './support/locks.ts';
import { outcomeOf } from './support/methods.ts';
import { connectAs, type TestDatabase, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { type Restartable, useRestartable } from './support/restartable.ts';
import { newProject } from './support/service.ts';
import { useStandby } from './support/standby.ts';
import { until } from './support/until.ts';

const FIRED = ['alert fires: warning', 'alert over: warning'];

const sleep = statement({
  name: 'test.sleep',
  params: {},
  row: z.object({ slept: z.literal('') }),
  sql: () => sql.fragment`select pg_sleep(0.2)::text as slept`,
});

/** Waits until that many sessions of a database have waited for a lock this long, in seconds. */
const untilWaited = async (admin: Client, sessions: number, seconds: number): Promise<void> => {
  const waits = `select from pg_locks l join pg_stat_activity a using (pid)
    where a.datname = current_database() and clock_timestamp() - l.waitstart > $1 * interval '1 second'`;
  await until(async () => (await admin.query(waits, [seconds])).rowCount === sessions, 'sessions wait for a lock');
};

/** Calls that wait for a project's row until it is let go. */
const blocked = async ({ service, said }: Alerting, calls: number) => {
  const { projectId, owner } = await newProject(service);
  const admin = await connectAs(service.db.adminUrl);
  const release = await lockProject(service.db, projectId);
  const update = (call: number) =>
    outcomeOf(
      service.projects.updateProject(
        { project: { id: projectId, name: `Name ${call}` }, updateMask: { paths: ['name'] } },
        { actor: owner },
      ),
    );
  const sent = Array.from({ length: calls }, (_, call) => update(call));
  const end = async () => {
    await release();
    await Promise.all(sent);
  };
  /** Makes calls that wait for nothing, until an alert has said more than that it fires. */
  const readUntilOver = (alert: string) =>
    until(async () => {
      await service.projects.getProject({ id: projectId }, { actor: owner });
      return said(alert).length > 1;
    }, `${alert} is over`);
  return { admin, end, readUntilOver };
};

suite('a real cause makes an alert fire, and its end makes it clear', { concurrency: true }, () => {
  test('lock_wait and oldest_transaction: somebody holds a row', async () => {
    const alerting = await useAlerting('lock_wait.warning=0.5,lock_wait.critical=2,oldest_transaction.warning=1');
    const { db } = alerting.service;
    const { projectId } = await newProject(alerting.service);
    const waiting = await connectAs(db.adminUrl);
    const release = await lockProject(db, projectId);
    const waited = waiting.query('select from projects where id = $1 for update', [projectId]);
    await alerting.fires('lock_wait', 'warning');
    await alerting.fires('oldest_transaction', 'warning');
    await alerting.fires('lock_wait', 'critical');
    await release();
    await waited;
    await alerting.over('lock_wait');
    await alerting.over('oldest_transaction');
    assert.deepEqual(alerting.said('lock_wait'), [
      'alert fires: warning',
      'alert has another severity: critical',
      'alert over: critical',
    ]);
    assert.deepEqual(alerting.said('oldest_transaction'), FIRED);
  });

  test('pool_wait: calls that wait for a row keep the whole pool', async () => {
    const alerting = await useAlerting('pool_wait.warning=0.05,pool_wait.critical=30,pool_wait.for=0', {
      env: { POOL_SIZE: '2' },
    });
    const { admin, end, readUntilOver } = await blocked(alerting, 5);
    await untilWaited(admin, 1, 1);
    await end();
    await alerting.fires('pool_wait', 'warning');
    await readUntilOver('pool_wait');
    await alerting.over('pool_wait');
    assert.deepEqual(alerting.said('pool_wait'), FIRED);
  });

  test('latency_p95: calls take long', async () => {
    const alerting = await useAlerting('latency_p95.warning=0.3,latency_p95.critical=60,latency_p95.for=0');
    const { admin, end, readUntilOver } = await blocked(alerting, 5);
    await untilWaited(admin, 5, 0.5);
    await end();
    await alerting.fires('latency_p95', 'warning');
    await readUntilOver('latency_p95');
    await alerting.over('latency_p95');
    assert.deepEqual(alerting.said('latency_p95'), FIRED);
  });

  test('slow_queries: statements run long', async () => {
    const alerting = await useAlerting('slow_queries.warning=1');
    const { service } = alerting;
    const admin = await connectAs(service.db.adminUrl);
    const sessions = await Promise.all([1, 2].map(() => connectAs(service.db.ownerUrl)));
    const sleeping = sessions.map((session) => assert.rejects(session.query('select pg_sleep(60)'), { code: '57014' }));
    await alerting.fires('slow_queries', 'warning');
    await admin.query(`select pg_cancel_backend(pid) from pg_stat_activity
      where datname = current_database() and query = 'select pg_sleep(60)'`);
    await Promise.all(sleeping);
    await alerting.over('slow_queries');
    assert.deepEqual(alerting.said('slow_queries'), FIRED);
  });

  test('slow_queries: the statements of the service were slow, until the window has gone by', async () => {
    const db = await useTestDatabase();
    const measurements = createMeasurements();
    const observer = { measurements, place: {}, slowMs: 100, onSlow: () => {} };
    const database = await createDatabase({ url: db.appUrl, size: 2, observer });
    after(() => database.end());
    const session = createSession(db.urlAs('monitor'));
    after(() => session.end());
    const log = createLog('silent');
    const monitor = await startMonitor({
      session,
      lookAtPooler: poolerLook(null, log),
      db: database,
      measurements,
      health: createHealth([]),
      alerts: createAlerts({ rules: configuredRules(parseAlerts('slow_queries.warning=1') ?? []), log }),
      log,
      intervalSeconds: 1,
      slowMs: 100,
      windowSeconds: 3,
    });
    after(() => monitor.stop());
    const value = () => monitor.report.alerts.find(({ name }) => name === 'slow_queries')?.value;
    await Promise.all([1, 2].map(() => database.run(sleep, {})));
    await until(() => value() === 2, 'slow statements make it fire');
    await until(() => value() === undefined, 'the window has gone by');
    assert.equal(measurements.slow.count, 2);
  });

  test('connect_failures: the database refuses connections', async () => {
    const db = await useTestDatabase();
    const proxy = await useProxy(db.appUrl);
    const alerting = await useAlerting(
      'connect_failures.warning=0.4,connect_failures.critical=0.99,connect_failures.for=0',
      {
        db,
        appUrl: () => proxy.url,
      },
    );
    const { service } = alerting;
    const { projectId, owner } = await newProject(service);
    const read = () => outcomeOf(service.projects.getProject({ id: projectId }, { actor: owner }));
    proxy.down = true;
    for (let call = 0; call < 5; call += 1) assert.equal(await read(), 'DATABASE_UNAVAILABLE');
    await alerting.fires('connect_failures', 'warning');
    proxy.down = false;
    await until(async () => {
      // So that the next call needs a connection that is made anew.
      proxy.cut();
      await read();
      return alerting.said('connect_failures').length > 1;
    }, 'new connections outweigh those that failed');
    await alerting.over('connect_failures');
    assert.deepEqual(alerting.said('connect_failures'), FIRED);
  });

  test('what is wrong with a server', ofServer);
});

/** What a service needs of a server that is the test's own. */
const databaseOn = ({ adminUrl, appUrl, ownerUrl }: Restartable): TestDatabase => ({
  adminUrl,
  appUrl,
  ownerUrl,
  urlAs: () => adminUrl,
  name: 'jeex',
  drop: async () => {},
});

/** Each on the same server, which starts but once with what the later ones need. */
async function ofServer(t: { test: typeof test }): Promise<void> {
  const server = await useRestartable();
  const admin = await connectAs(server.adminUrl);
  for (const setting of ['archive_mode = on', "archive_command = 'true'"])
    await admin.query(`alter system set ${setting}`);
  const standby = await useStandby(server, 'standby');
  await standby.start();
  const alerting = await useAlerting(
    [
      'connections.warning=0.3,connections.for=1',
      'cache_hit_ratio.warning=0.6,cache_hit_ratio.critical=0,cache_hit_ratio.for=0',
      'archiving_failed.warning=1',
      'replica_lag.warning=5000000,replica_lag.for=0',
      'replica_missing.for=0',
    ].join(),
    { db: databaseOn(server) },
  );
  const { fires, over, said } = alerting;
  const ask = async (...statements: readonly string[]): Promise<void> => {
    const client = await connectAs(server.adminUrl);
    for (const statement of statements) await client.query(statement);
    // What a session has counted, PostgreSQL tells at its end.
    await client.end();
  };

  await t.test('connections: they are opened', async () => {
    const opened = await Promise.all(Array.from({ length: 35 }, () => connectAs(server.adminUrl)));
    await fires('connections', 'warning');
    for (const client of opened) await client.end();
    await over('connections');
    assert.deepEqual(said('connections'), FIRED);
  });

  await t.test('cache_hit_ratio: a table that is larger than the cache is read', async () => {
    // Unlogged, so that the replica is not behind for it.
    await ask(
      `create unlogged table public.large as select n, repeat('x', 1000) as filling from generate_series(1, 80000) n`,
      'create table public.small as select n from generate_series(1, 1000) n',
      'create index on public.small (n)',
      ...Array(10).fill('select count(*) from public.large'),
    );
    await fires('cache_hit_ratio', 'warning');
    await ask('select sum((select s.n from public.small s where s.n = g % 1000)) from generate_series(1, 400000) g');
    await over('cache_hit_ratio');
    assert.deepEqual(said('cache_hit_ratio'), FIRED);
  });

  await t.test('archiving_failed: the command that archives fails', async () => {
    await ask(
      "alter system set archive_command = 'false'",
      'select pg_reload_conf()',
      'create table public.a (n int)',
      'select pg_switch_wal()',
    );
    await fires('archiving_failed', 'warning');
    await ask("alter system set archive_command = 'true'", 'select pg_reload_conf()');
    await over('archiving_failed');
    assert.deepEqual(said('archiving_failed'), FIRED);
  });

  await t.test('replica_lag: a replica does not replay what it is sent', async () => {
    const replica = await standby.connect();
    await replica.query('select pg_wal_replay_pause()');
    await ask(`create table public.written as select n, repeat('x', 1000) as filling from generate_series(1, 10000) n`);
    await fires('replica_lag', 'warning');
    await replica.query('select pg_wal_replay_resume()');
    await over('replica_lag');
    await replica.end();
    assert.deepEqual(said('replica_lag'), FIRED);
  });

  await t.test('replica_missing: a replica is stopped', async () => {
    await standby.stop();
    await fires('replica_missing', 'warning');
    await standby.start();
    await over('replica_missing');
    assert.deepEqual(said('replica_missing'), FIRED);
  });

  await t.test('database_down: the server is killed', async () => {
    await server.stop('immediate');
    await fires('database_down', 'critical');
    await server.start();
    await over('database_down');
    assert.deepEqual(said('database_down'), ['alert fires: critical', 'alert over: critical']);
  });
}
