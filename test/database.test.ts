import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { compareMigrations, hitRatio } from '../src/database/database.ts';
import { DatabaseStatus } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { latestVersion } from '../src/migrator/files.ts';
import { VERSION } from '../src/version.ts';
import { lockProject, untilBlocked } from './support/locks.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { newProject, newUser, useService } from './support/service.ts';

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const service = await useService({ db, appUrl: () => proxy.url, env: { POOL_SIZE: '7' } });
const { database } = service;
const owner = await useOwner(db);

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
  it('is what PostgreSQL and the pool tell, and leaves out what nobody knows', async () => {
    const { health } = await database.getDatabaseHealth({});
    assert.equal(health?.status, DatabaseStatus.HEALTHY);
    const { rows } = await owner.query(
      `select current_setting('server_version') as version, current_setting('max_connections') as most,
         pg_database_size(current_database()) as size`,
    );
    assert.equal(health?.postgresVersion, rows[0].version);
    assert.equal(health?.connections?.limit, BigInt(rows[0].most));
    assert.ok((health?.connections?.byState.active ?? 0n) >= 1n);
    assert.ok(Math.abs(Number(health?.databaseSizeBytes) - Number(rows[0].size)) < 10_000_000);
    assert.equal(health?.servicePool?.limit, 6n, 'the readiness check has one of the seven');
    assert.equal(health?.schemaVersion, latestVersion());
    assert.ok((health?.cacheHitRatio ?? -1) >= 0 && (health?.cacheHitRatio ?? 2) <= 1);
    assert.ok((health?.latency?.seconds ?? 9n) === 0n && (health?.latency?.nanos ?? 0) > 0);
    assert.equal(health?.walArchiving?.enabled, false);
    assert.deepEqual(
      [
        health?.lastBackup,
        health?.transactionsPerSecond,
        health?.slowQueryCount,
        health?.pgbouncerPools,
        health?.alerts,
      ],
      [undefined, undefined, undefined, [], []],
    );
  });

  it('tells what calls waited for connections, and what making these came to', async () => {
    const { health } = await database.getDatabaseHealth({});
    const pool = health?.servicePool;
    assert.ok((pool?.acquisitions ?? 0n) >= 1n && (pool?.connects ?? 0n) >= 1n);
    const { seconds = 0n, nanos = 0 } = pool?.acquisitionWait ?? {};
    assert.ok(seconds > 0n || nanos > 0);
    assert.deepEqual([pool?.acquisitionTimeouts, pool?.failedConnects], [0n, 0n]);
  });

  it('is UNAVAILABLE, not an error, while every connection is in use, and says so', async () => {
    const busy = await useService({ db, env: { POOL_SIZE: '2', POOL_WAIT_MS: '20' } });
    const { projectId } = await newProject(service);
    const release = await lockProject(db, projectId);
    const holding = busy.projects.updateProject({ project: { id: projectId, name: 'Held' } });
    await untilBlocked(await connectAs(db.adminUrl), 1);
    const { health } = await busy.database.getDatabaseHealth({});
    assert.deepEqual([health?.status, health?.servicePool?.limit], [DatabaseStatus.UNAVAILABLE, 1n]);
    const again = await busy.database.getDatabaseHealth({});
    assert.ok((again.health?.servicePool?.acquisitionTimeouts ?? 0n) >= 1n);
    await release();
    await holding;
  });

  it('is UNAVAILABLE, not an error, while the database does not answer; a watch hears each change once', async () => {
    const watching = database.watchHealth({})[Symbol.asyncIterator]();
    const next = async () => (await watching.next()).value?.health?.status;
    assert.equal(await next(), DatabaseStatus.HEALTHY);
    proxy.down = true;
    try {
      assert.equal(await next(), DatabaseStatus.UNAVAILABLE);
      const { health } = await database.getDatabaseHealth({});
      assert.deepEqual([health?.status, health?.postgresVersion], [DatabaseStatus.UNAVAILABLE, '']);
      await assert.rejects(database.getServerInfo({}), { reason: 'DATABASE_UNAVAILABLE' });
    } finally {
      proxy.down = false;
    }
    assert.equal(await next(), DatabaseStatus.HEALTHY);
    await watching.return?.();
  });
});

describe('a watch of the health', () => {
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

describe('slow queries', () => {
  it('are none where nothing keeps statistics; a page token of nobody is refused', async () => {
    const { queries, nextPageToken } = await database.listSlowQueries({});
    assert.deepEqual([queries, nextPageToken], [[], '']);
    await assert.rejects(database.listSlowQueries({ pageToken: 'x' }), { reason: 'INVALID_PAGE_TOKEN' });
    await assert.rejects(database.listSlowQueries({ pageSize: -1 }), { reason: 'INVALID_FIELD' });
  });
});

it('the cache hit ratio is none before the first read', () => {
  assert.equal(hitRatio(0n, 0n), null);
  assert.equal(hitRatio(3n, 1n), 0.75);
});
