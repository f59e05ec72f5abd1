import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { Duration } from '@bufbuild/protobuf/wkt';
import { createDatabase } from '../src/db/pool.ts';
import { type DatabaseHealth, DatabaseStatus } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { createLog } from '../src/log.ts';
import { latestVersion } from '../src/migrator/files.ts';
import { createAlerts } from '../src/monitor/evaluate.ts';
import { startMonitor } from '../src/monitor/monitor.ts';
import { poolerLook } from '../src/monitor/pooler.ts';
import { RULES } from '../src/monitor/rules.ts';
import { createSession } from '../src/monitor/session.ts';
import { createHealth } from '../src/rpc/health.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';
import { lockProject, untilBlocked } from './support/locks.ts';
import { connectAs, testCluster, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { ENCRYPTION_KEY, newProject, useService } from './support/service.ts';
import { type Spawned, spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

const SLOW_MS = 400;

const db = await useTestDatabase();
const admin = await connectAs(db.adminUrl);
const proxy = await useProxy(db.appUrl);
const watched = await useProxy(db.urlAs('monitor'));

/** What PostgreSQL has counted of the database, and when, in seconds. */
const counted = async () => {
  await admin.query('select pg_stat_force_next_flush()');
  const { rows } = await admin.query(
    `select d.xact_commit + d.xact_rollback as transactions, d.blks_hit as hits, d.blks_read as reads,
       (select sum(calls) from stats.pg_stat_statements s where s.dbid = d.datid) as queries
     from pg_stat_database d where d.datname = current_database()`,
  );
  const { transactions, hits, reads, queries } = rows[0];
  const at = performance.now() / 1000;
  return { at, transactions: Number(transactions), hits: Number(hits), reads: Number(reads), queries: Number(queries) };
};

const lines: string[] = [];
const log = createLog('info', { write: (line) => void lines.push(line) });
const said = (what: RegExp): number => lines.filter((line) => what.test(line)).length;

const begun = await counted();
const service = await useService({
  db,
  appUrl: () => proxy.url,
  log,
  env: { POOL_SIZE: '7', SLOW_QUERY_MS: String(SLOW_MS), MONITOR_DATABASE_URL: watched.url },
});
const { database } = service;

const healthNow = async (): Promise<DatabaseHealth> => {
  const { health } = await database.getDatabaseHealth({});
  assert.ok(health);
  return health;
};

const secondsOf = (length: Duration | undefined): number =>
  length === undefined ? Number.NaN : Number(length.seconds) + length.nanos / 1e9;

/** One value by a superuser. */
const told = async (sql: string): Promise<number> => Number(Object.values((await admin.query(sql)).rows[0])[0]);

/** The first health that was measured after this was asked for. */
const nextHealth = async (): Promise<DatabaseHealth> => {
  const { checkTime } = await healthNow();
  let health = await healthNow();
  const isNew = async () => {
    health = await healthNow();
    return !isDeepStrictEqual(health.checkTime, checkTime);
  };
  await until(isNew, 'it is measured anew');
  return health;
};

/** Compares an age, which goes on growing, with what a superuser reads before and after it was measured. */
const assertBetween = async (figure: (health: DatabaseHealth) => number, sql: string): Promise<void> => {
  const before = await told(sql);
  const value = figure(await nextHealth());
  const after = await told(sql);
  assert.ok(before > 0 && value >= before && value <= after, `${before} <= ${value} <= ${after}`);
};

/** As the health counts them, by a superuser. */
const CONNECTIONS = `
select jsonb_object_agg(c.state, c.n) as states from (
  select state, count(*) as n from pg_stat_activity where backend_type = 'client backend' group by state) c`;

describe('each figure of the health is what is read of it another way', () => {
  before(async () => {
    const { projectId } = await newProject(service);
    await service.projects.getProject({ id: projectId });
  });

  it('of the server: version, limit, schema, size, archiving, backup, replicas', async () => {
    const health = await healthNow();
    const { rows } = await admin.query(
      `select current_setting('server_version') as version, current_setting('max_connections') as most,
         pg_database_size(current_database()) as size, (select max(version) from schemaversion) as schema,
         current_setting('archive_mode') <> 'off' as archiving`,
    );
    assert.deepEqual(
      [health.postgresVersion, health.connections?.limit, health.schemaVersion],
      [rows[0].version, BigInt(rows[0].most), Number(rows[0].schema)],
    );
    assert.equal(health.schemaVersion, latestVersion());
    assert.ok(Math.abs(Number(health.databaseSizeBytes) - Number(rows[0].size)) < 10_000_000);
    assert.ok(secondsOf(health.latency) > 0 && secondsOf(health.latency) < 2);
    assert.equal(health.walArchiving?.enabled, rows[0].archiving);
    assert.deepEqual([health.lastBackup, health.replicas, health.pgbouncerPools], [undefined, [], []]);
    assert.ok(Math.abs(Number(health.checkTime?.seconds) - Date.now() / 1000) < 60);
  });

  it('of connections, by state', async () => {
    for (let each = 0; each < 3; each += 1) await (await connectAs(db.urlAs('owner'))).query('begin');
    await until(async () => {
      const { connections } = await healthNow();
      const { rows } = await admin.query(CONNECTIONS);
      const measured = Object.fromEntries(
        Object.entries(connections?.byState ?? {}).map(([state, count]) => [state, Number(count)]),
      );
      // Whoever looks is active: the monitor there, and the superuser here.
      return isDeepStrictEqual(measured, rows[0].states) && (measured['idle in transaction'] ?? 0) >= 3;
    }, 'both count the same');
  });

  it('of the pool: what PostgreSQL and the proxy before it know of', async () => {
    const { servicePool } = await healthNow();
    assert.equal(servicePool?.limit, 6n, 'the readiness check has one of the seven');
    assert.equal(servicePool.acquired, 0n);
    // One more is the readiness check's.
    assert.equal(servicePool.idle + 1n, BigInt(proxy.connections));
    assert.deepEqual([servicePool.connects, servicePool.failedConnects], [servicePool.idle, 0n]);
    const { roundTrips } = proxy;
    const calls = 5;
    for (let call = 0; call < calls; call += 1) await database.getServerInfo({});
    const after = (await healthNow()).servicePool;
    const acquisitions = Number((after?.acquisitions ?? 0n) - servicePool.acquisitions);
    assert.ok(acquisitions >= calls && acquisitions <= proxy.roundTrips - roundTrips);
    assert.ok(secondsOf(after?.acquisitionWait) > 0);
    assert.equal(after?.acquisitionTimeouts, 0n);
  });

  it('of waits for locks and of open transactions: how many, and how long', async () => {
    const elsewhere = await connectAs(testCluster().adminUrl);
    await elsewhere.query('begin');
    const { projectId } = await newProject(service);
    const release = await lockProject(db, projectId);
    const waiting = service.projects.updateProject({ project: { id: projectId, name: 'Held' } });
    await untilBlocked(admin, 1);
    await until(async () => (await healthNow()).locksWaiting === 1n, 'one waits');
    const longest = `select extract(epoch from clock_timestamp() - min(waitstart)) from pg_locks where not granted`;
    await assertBetween(({ longestLockWait }) => secondsOf(longestLockWait), longest);
    const oldest = `select extract(epoch from clock_timestamp() - min(xact_start)) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()`;
    await assertBetween(({ oldestTransaction }) => secondsOf(oldestTransaction), oldest);
    await until(async () => (await told(longest)) > SLOW_MS / 1000, 'the one that waits is slow');
    await release();
    await waiting;
    await until(async () => (await healthNow()).locksWaiting === 0n, 'none waits');
    assert.equal(secondsOf((await healthNow()).longestLockWait), 0);
  });

  it('of slow statements: those that were, and those of anybody that run now', async () => {
    await until(async () => (await healthNow()).slowQueryCount === 1n, 'the one that waited for the lock was slow');
    const other = await connectAs(db.urlAs('owner'));
    const running = other.query('select pg_sleep(60)');
    running.catch(() => {});
    await until(async () => (await healthNow()).slowQueryCount === 2n, 'another runs');
    await admin.query('select pg_cancel_backend($1)', [(other as unknown as { processID: number }).processID]);
    await assert.rejects(running, { code: '57014' });
    await until(async () => (await healthNow()).slowQueryCount === 1n, 'it does not run any more');
  });

  it('of what goes through the database', async () => {
    const busy = await connectAs(db.urlAs('owner'));
    for (let n = 0; n < 3000; n += 1) await busy.query('select count(*) from pg_class');
    await busy.query('select pg_stat_force_next_flush()');
    await until(async () => {
      const health = await healthNow();
      const now = await counted();
      const seconds = now.at - begun.at;
      const [hits, reads] = [now.hits - begun.hits, now.reads - begun.reads];
      return (
        isNear(health.transactionsPerSecond, (now.transactions - begun.transactions) / seconds) &&
        isNear(health.queriesPerSecond, (now.queries - begun.queries) / seconds) &&
        isNear(health.cacheHitRatio, hits / (hits + reads))
      );
    }, 'the rates are those of PostgreSQL’s counts');
  });

  it('of each RPC: the calls of its clients, their failures and how long they took', async () => {
    const of = async (method: string) => (await healthNow()).rpcs.find((rpc) => rpc.method.endsWith(`/${method}`));
    const before = (await of('GetMigrationStatus'))?.calls ?? 0n;
    let longest = 0;
    for (let call = 0; call < 20; call += 1) {
      const began = performance.now();
      await database.getMigrationStatus({});
      longest = Math.max(longest, (performance.now() - began) / 1000);
    }
    await until(async () => (await of('GetMigrationStatus'))?.calls === before + 20n, 'each call counts');
    const { method, errors, p50, p99 } = (await of('GetMigrationStatus')) ?? {};
    assert.deepEqual([method, errors], ['jeex.persistence.v1.DatabaseService/GetMigrationStatus', 0n]);
    // A bucket is as wide as a third of its bound, at most.
    assert.ok(secondsOf(p50) > 0 && secondsOf(p50) <= secondsOf(p99) && secondsOf(p99) <= longest * 1.5);
  });
});

const isNear = (figure: number | undefined, other: number): boolean =>
  figure !== undefined && Math.abs(figure - other) <= 0.2 * other;

describe('the history', () => {
  it('has a sample of the start at least, with the figures of that moment', async () => {
    const { samples } = await database.getHealthHistory({});
    const [first] = samples;
    assert.ok(samples.length >= 1 && first?.time);
    assert.deepEqual([first.status, first.poolLimit], [DatabaseStatus.HEALTHY, 6n]);
    assert.ok(first.connections !== undefined && first.connections >= 1n && secondsOf(first.latency) > 0);
    const times = samples.map(({ time }) => Number(time?.seconds));
    assert.deepEqual(
      times,
      times.toSorted((one, other) => one - other),
    );
  });

  it('grows with each turn', async () => {
    const often = await useService({ db, env: { MONITOR_INTERVAL_SECONDS: '1' } });
    const samplesNow = async () => (await often.database.getHealthHistory({})).samples;
    await often.database.getServerInfo({});
    await until(async () => (await samplesNow()).length >= 3, 'there are three');
    const [, second] = await samplesNow();
    assert.ok((second?.callsPerSecond ?? 0) > 0 && secondsOf(second?.p95) > 0);
    await often.stop();
  });

  it('refuses an actor that is none', async () => {
    await assert.rejects(database.getHealthHistory({}, { actor: randomUUID() }), { reason: 'ACTOR_UNKNOWN' });
  });
});

describe('the monitor', () => {
  it('asks on one connection of its own, and no more often than once in a second', async () => {
    const { connections, roundTrips } = watched;
    const asked = proxy.roundTrips;
    const began = performance.now();
    const answers = await Promise.all(Array.from({ length: 200 }, healthNow));
    assert.ok(answers.every(({ status }) => status !== DatabaseStatus.UNSPECIFIED));
    // Each look takes two round trips.
    const looks = 1 + Math.floor((performance.now() - began) / 1000);
    assert.ok(watched.roundTrips - roundTrips <= 2 * looks);
    assert.equal(watched.connections, connections);
    assert.ok(proxy.roundTrips - asked <= 2 + 4 * looks, 'the callers’ pool is asked by the readiness check alone');
  });

  it('that is cut off leaves out what PostgreSQL told, says so once, and finds it again', async () => {
    const health = await healthNow();
    watched.down = true;
    await until(async () => (await healthNow()).postgresVersion === '', 'the figures are gone');
    const blind = await healthNow();
    assert.deepEqual(
      [blind.status, blind.connections, blind.databaseSizeBytes, blind.servicePool?.limit],
      [health.status, undefined, undefined, 6n],
    );
    assert.equal(said(/"msg":"the monitor does not see the database"/), 1);
    watched.down = false;
    await until(async () => (await healthNow()).postgresVersion === health.postgresVersion, 'the figures are back');
    assert.equal(said(/the monitor sees the database again/), 1);
    assert.ok((await healthNow()).transactionsPerSecond !== undefined, 'the counts go on');
  });

  it('that is told nothing answers with what it knew, and does not wait', async () => {
    const known = await healthNow();
    watched.silent = true;
    try {
      // The monitor itself waits for two seconds.
      const soon = async () => (await database.getDatabaseHealth({}, { timeout: 1000 })).health;
      await until(async () => (await soon())?.postgresVersion === '', 'PostgreSQL does not answer');
      assert.notEqual(known.postgresVersion, '');
    } finally {
      watched.silent = false;
      watched.cut();
    }
    await until(async () => (await healthNow()).postgresVersion === known.postgresVersion, 'it answers again');
  });

  it('of a service that drains says nothing of the database by that', async () => {
    const health = createHealth([]);
    health.setReady(true);
    const [session, quiet] = [createSession(db.urlAs('monitor')), createLog('silent')];
    const alerts = createAlerts({ rules: RULES, log: quiet });
    const { state } = await createDatabase({ url: db.appUrl, size: 1 });
    const rest = { measurements: createMeasurements(), log: quiet, intervalSeconds: 30, slowMs: 1000 };
    const lookAtPooler = poolerLook(null, quiet);
    const monitor = await startMonitor({ session, lookAtPooler, db: { state }, health, alerts, ...rest });
    health.drain();
    const { ready, alerts: firing } = await monitor.current();
    assert.deepEqual([health.ready, ready, firing], [false, true, []]);
    await monitor.stop();
    await session.end();
  });

  it('without a URL of its own is told of at the start, once', async () => {
    const env = { DATABASE_URL: db.appUrl, ENCRYPTION_KEYS: ENCRYPTION_KEY };
    const [without, direct] = await Promise.all([
      spawnService(env),
      spawnService({ ...env, MONITOR_DATABASE_URL: db.urlAs('monitor') }),
    ]);
    const told = ({ log }: Spawned): number => log().match(/MONITOR_DATABASE_URL is unset/g)?.length ?? 0;
    assert.deepEqual([told(without), told(direct)], [1, 0]);
  });

  it('without a URL of its own sees what jeex_app may, on a connection of its own', async () => {
    const modest = await useService({ db, env: { MONITOR_DATABASE_URL: '' } });
    const { health } = await modest.database.getDatabaseHealth({});
    assert.deepEqual(
      [health?.status, health?.schemaVersion, health?.queriesPerSecond, health?.lastBackup],
      [DatabaseStatus.HEALTHY, latestVersion(), undefined, undefined],
    );
    assert.ok((health?.databaseSizeBytes ?? 0n) > 0n && (health?.connections?.byState.unknown ?? 0n) > 0n);
    const mine = `select count(*) from pg_stat_activity where datname = current_database() and usename = 'jeex_app'
      and application_name = 'jeex-persistence monitor'`;
    if (testCluster().pooler === null) assert.equal(await told(mine), 1);
    await modest.stop();
    if (testCluster().pooler === null)
      await until(async () => (await told(mine)) === 0, 'it is closed with the service');
  });
});
