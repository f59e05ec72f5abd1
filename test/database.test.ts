import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { compareMigrations } from '../src/database/database.ts';
import {
  AlertSeverity,
  type DatabaseHealth,
  DatabaseStatus,
} from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { createLog } from '../src/log.ts';
import { latestVersion } from '../src/migrator/files.ts';
import { VERSION } from '../src/version.ts';
import { lockProject, untilBlocked } from './support/locks.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { newProject, newUser, useService } from './support/service.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const lines: string[] = [];
const log = createLog('info', { write: (line) => void lines.push(line) });
const service = await useService({ db, appUrl: () => proxy.url, log });
const { database } = service;
const owner = await useOwner(db);
const admin = await connectAs(db.adminUrl);

describe('what the service says of itself', () => {
  it('is its version, its schema, what is on, and the limits', async () => {
    const { info } = await database.getServerInfo({});
    assert.equal(info?.serviceVersion, VERSION);
    assert.equal(info?.schemaVersion, latestVersion());
    assert.ok(info?.features.includes('reflection'));
    assert.equal(info?.limits.message_bytes, 4n * 1024n * 1024n);
    assert.equal(info?.limits.content_bytes, 3n * 1024n * 1024n);
  });

  it('is told to any actor that there is', async () => {
    const actor = await newUser(service);
    for (const call of [
      database.getServerInfo,
      database.getDatabaseHealth,
      database.listSlowQueries,
      database.getHealthHistory,
      database.getMigrationStatus,
    ] as const) {
      await call({}, { actor });
      await assert.rejects(call({}, { actor: randomUUID() }), { reason: 'ACTOR_UNKNOWN' });
    }
    const watching = database.watchHealth({}, { actor: randomUUID() })[Symbol.asyncIterator]();
    await assert.rejects(watching.next(), { reason: 'ACTOR_UNKNOWN' });
  });
});

describe('the health of the database', () => {
  it('is told while every connection is in use, also to an actor, and says so', async () => {
    const busy = await useService({ db, env: { POOL_SIZE: '2' } });
    const { projectId, owner: actor } = await newProject(service);
    const release = await lockProject(db, projectId);
    const holding = busy.projects.updateProject({ project: { id: projectId, name: 'Held' } });
    await untilBlocked(admin, 1);
    const waiting = busy.database.getServerInfo({});
    await until(async () => {
      const { health } = await busy.database.getDatabaseHealth({}, { actor });
      const { acquired, waiting: queued, limit } = health?.servicePool ?? {};
      return health?.status === DatabaseStatus.HEALTHY && acquired === 1n && queued === 1n && limit === 1n;
    }, 'one has the connection, and one waits for it');
    const { samples } = await busy.database.getHealthHistory({}, { actor });
    assert.ok(samples.length > 0);
    const watching = busy.database.watchHealth({}, { actor })[Symbol.asyncIterator]();
    assert.equal((await watching.next()).value?.health?.servicePool?.waiting, 1n);
    await watching.return?.();
    await release();
    await Promise.all([holding, waiting]);
  });

  it('is told an actor soon while the database is silent', async () => {
    const actor = await newUser(service);
    proxy.silent = true;
    try {
      const { health } = await database.getDatabaseHealth({}, { actor, timeout: 1000 });
      assert.notEqual(health?.postgresVersion, '');
    } finally {
      proxy.silent = false;
      proxy.cut();
    }
    await until(async () => {
      const { health } = await database.getDatabaseHealth({});
      return health?.status === DatabaseStatus.HEALTHY;
    }, 'it is healthy again');
  });

  it('is looked at as soon as readiness turns, though nobody asks', async () => {
    const said = (message: string) => () =>
      lines.some((line) => line.includes('"alert":"database_down"') && line.includes(message));
    proxy.down = true;
    await until(said('alert fires'), 'the alert fires');
    proxy.down = false;
    await until(said('alert over'), 'the alert is over');
  });

  it('is UNAVAILABLE, not an error, while the database does not answer; a watch hears each change once', async () => {
    const watching = database.watchHealth({})[Symbol.asyncIterator]();
    const next = async () => (await watching.next()).value?.health?.status;
    assert.equal(await next(), DatabaseStatus.HEALTHY);
    proxy.down = true;
    try {
      assert.equal(await next(), DatabaseStatus.UNAVAILABLE);
      const { health } = await database.getDatabaseHealth({});
      assert.equal(health?.status, DatabaseStatus.UNAVAILABLE);
      assert.deepEqual(
        health.alerts.map(({ name, severity, value }) => [name, severity, value]),
        [['database_down', AlertSeverity.CRITICAL, 1]],
      );
      assert.notEqual(health.postgresVersion, '', 'the monitor has a way of its own');
      await assert.rejects(database.getServerInfo({}), { reason: 'DATABASE_UNAVAILABLE' });
    } finally {
      proxy.down = false;
    }
    // What the outage itself sets off, such as slow statements, may be told of before all is well.
    const after = await next();
    if (after === DatabaseStatus.DEGRADED) assert.equal(await next(), DatabaseStatus.HEALTHY);
    else assert.equal(after, DatabaseStatus.HEALTHY);
    await watching.return?.();
  });
});

describe('a watch of the health', () => {
  it('hears of an alert, and of its end', async () => {
    const env = { MONITOR_INTERVAL_SECONDS: '1', ALERTS: 'lock_wait.warning=0.1' };
    const alert = await useService({ db, env });
    const watching = alert.database.watchHealth({})[Symbol.asyncIterator]();
    const next = async (): Promise<DatabaseHealth | undefined> => (await watching.next()).value?.health;
    assert.equal((await next())?.status, DatabaseStatus.HEALTHY);
    const { projectId } = await newProject(service);
    const release = await lockProject(db, projectId);
    const waiting = service.projects.updateProject({ project: { id: projectId, name: 'Held' } });
    const degraded = await next();
    assert.deepEqual(
      [
        degraded?.status,
        degraded?.alerts.map(({ name, severity, threshold, unit }) => [name, severity, threshold, unit]),
      ],
      [DatabaseStatus.DEGRADED, [['lock_wait', AlertSeverity.WARNING, 0.1, 'seconds']]],
    );
    assert.ok((degraded?.alerts[0]?.value ?? 0) > 0.1 && degraded?.alerts[0]?.fireTime);
    await release();
    await waiting;
    assert.equal((await next())?.status, DatabaseStatus.HEALTHY);
    await watching.return?.();
    await alert.stop();
  });

  it('ends when its actor is erased', async () => {
    const actor = await newUser(service);
    const watching = database.watchHealth({}, { actor })[Symbol.asyncIterator]();
    assert.equal((await watching.next()).value?.health?.status, DatabaseStatus.HEALTHY);
    await service.users.deleteUser({ id: actor });
    await assert.rejects(watching.next(), { reason: 'ACTOR_UNKNOWN' });
  });
});

describe('the migrations', () => {
  it('are all applied, each with the checksum of its file', async () => {
    const status = await database.getMigrationStatus({});
    assert.equal(status.applied.length, latestVersion());
    assert.deepEqual([status.pending, status.checksumMismatches], [[], []]);
    const [first] = status.applied;
    assert.deepEqual([first?.version, first?.name], [1, 'tables']);
    assert.match(first?.checksum ?? '', /^[0-9a-f]{32}$/);
    assert.ok(first?.applyTime && first.duration);
    assert.deepEqual([first.release, status.oldestRelease], [VERSION, 0]);
  });

  it('show what is missing and what was changed since', async () => {
    const last = latestVersion();
    const { rows } = await owner.query('delete from schemaversion where version = $1 returning *', [last]);
    await owner.query(`update schemaversion set md5 = 'other' where version = 2`);
    const status = await database.getMigrationStatus({});
    assert.deepEqual(
      status.pending.map(({ version, applyTime }) => [version, applyTime]),
      [[last, undefined]],
    );
    const [mismatch] = status.checksumMismatches;
    assert.deepEqual([mismatch?.version, mismatch?.appliedChecksum], [2, 'other']);
    await owner.query('insert into schemaversion select * from json_populate_record(null::schemaversion, $1)', [
      rows[0],
    ]);
  });

  it('of a later release are told as applied', async (t) => {
    const later = latestVersion() + 1;
    await owner.query(
      `insert into schemaversion (version, name, md5, run_at, release, duration_ms, oldest_release)
       values ($1, 'later', 'y', now(), '9.0.0', 1500, 3)`,
      [later],
    );
    t.after(() => owner.query('delete from schemaversion where version = $1', [later]));
    const { applied, checksumMismatches, oldestRelease } = await database.getMigrationStatus({});
    const { version, release, duration } = applied.at(-1) ?? {};
    assert.deepEqual([version, release, duration?.seconds, duration?.nanos], [later, '9.0.0', 1n, 500_000_000]);
    assert.ok(checksumMismatches.every((mismatch) => mismatch.version !== later));
    assert.equal(oldestRelease, 3);
  });

  it('of a later release are a mismatch without a file once the release cannot serve the schema', () => {
    const file = { version: 1, name: 'a', checksum: 'x' };
    const later = { version: 2, name: 'b', checksum: 'y', time: 0n };
    assert.deepEqual(compareMigrations([file], [{ ...later, oldestRelease: 1 }]), {
      pending: [file],
      mismatches: [],
      oldest: 1,
    });
    assert.deepEqual(compareMigrations([file], [{ ...later, oldestRelease: 2 }]), {
      pending: [file],
      mismatches: [{ version: 2, name: 'b', applied: 'y', file: null }],
      oldest: 2,
    });
  });

  it('below its newest that a release does not have are a mismatch without a file', () => {
    const files = [1, 3].map((version) => ({ version, name: 'a', checksum: 'x' }));
    const applied = [1, 2, 3].map((version) => ({ version, name: 'a', checksum: 'x', time: 0n, oldestRelease: null }));
    const { mismatches } = compareMigrations(files, applied);
    assert.deepEqual(mismatches, [{ version: 2, name: 'a', applied: 'x', file: null }]);
  });
});
