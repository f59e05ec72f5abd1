import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { bootstrap } from '../src/db/roles.ts';
import { Health, HealthCheckResponse_ServingStatus as Serving } from '../src/gen/grpc/health/v1/health_pb.js';
import { latestVersion } from '../src/migrator/files.ts';
import { clientOf, openChannel } from './support/client.ts';
import { connectAs, type TestDatabase, testCluster, useTestDatabase } from './support/postgres.ts';
import { clientsOn, ENCRYPTION_KEY, newUser } from './support/service.ts';
import { spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

const environment = (db: TestDatabase) => ({
  DATABASE_URL: db.appUrl,
  MIGRATION_DATABASE_URL: db.ownerUrl,
  ENCRYPTION_KEYS: ENCRYPTION_KEY,
});

const OWNER_IS_HERE = /MIGRATION_DATABASE_URL gives the service its schema's owner/;

const useClients = (address: string) => {
  const channel = openChannel(address);
  after(() => channel.close());
  return { ...clientsOn(channel), health: clientOf(Health, channel) };
};

describe('a given database', async () => {
  it('that is empty is refused, unless the service is asked to migrate: of two at once each migration is applied once', async () => {
    const db = await useTestDatabase({ empty: true });
    const { adminUrl, passwords } = testCluster();
    await bootstrap(adminUrl, { database: db.name, passwords });
    const { MIGRATION_DATABASE_URL: _, ...serving } = environment(db);
    await assert.rejects(spawnService(serving), /run `jeex-persistence migrate up`/);
    const asked = { ...environment(db), MIGRATE: 'auto' };
    const started = await Promise.all([spawnService(asked), spawnService(asked)]);
    for (const { grpc, log } of started) {
      assert.ok(await newUser(useClients(grpc)));
      assert.doesNotMatch(log(), OWNER_IS_HERE, 'it was asked for');
    }
    const owner = await connectAs(db.ownerUrl);
    const { rows } = await owner.query(
      'select version, count(*)::int as times from jeex.schemaversion group by 1 order by 1',
    );
    const applied = rows.filter(({ version }) => Number(version) > 0);
    assert.deepEqual(
      applied.map(({ version, times }) => [Number(version), times]),
      Array.from({ length: latestVersion() }, (_, i) => [i + 1, 1]),
    );
  });
});

/** Whether somebody in this database waits for a lock. */
const isBlocked = async (client: Awaited<ReturnType<typeof connectAs>>): Promise<boolean> => {
  const { rows } = await client.query(
    `select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
  );
  return rows[0].n > 0;
};

describe('SIGTERM while calls are in flight', async () => {
  it('turns health, serves on for the delay, finishes the calls in flight, and ends with 0', async () => {
    const db = await useTestDatabase();
    const service = await spawnService({ ...environment(db), SHUTDOWN_DELAY_SECONDS: '2' });
    assert.match(service.log(), OWNER_IS_HERE, 'who serves needs no owner');
    const { users, projects, health } = useClients(service.grpc);
    const actor = await newUser({ users } as ReturnType<typeof clientsOn>);
    const { project } = await projects.createProject({ name: 'P', language: 'en' }, { actor });
    const id = project?.id ?? '';

    const statuses: Serving[] = [];
    const watching = (async () => {
      for await (const { status } of health.watch({ service: 'readiness' })) statuses.push(status);
    })().catch(() => {});
    await until(async () => statuses.includes(Serving.SERVING), 'the watch shows SERVING');

    const blocker = await connectAs(db.adminUrl);
    await blocker.query('begin');
    await blocker.query('select from jeex.projects where id = $1 for update', [id]);
    const inFlight = projects.updateProject({ project: { id, name: 'Finished' } }, { actor });
    await until(() => isBlocked(blocker), 'the call waits for the lock');

    service.process.kill('SIGTERM');
    await until(async () => statuses.includes(Serving.NOT_SERVING), 'the watch shows NOT_SERVING');
    assert.equal((await users.getUser({ id: actor })).user?.id, actor);
    const ready = await fetch(`http://${service.http}/readyz`);
    assert.equal(ready.status, 503);
    assert.equal((await health.check({ service: 'liveness' })).status, Serving.SERVING);
    await watching;
    await assert.rejects(users.getUser({ id: actor }), { code: 14 });

    await blocker.query('commit');
    assert.equal((await inFlight).project?.name, 'Finished');
    assert.equal(await service.exited, 0);
  });

  it('ends at once by a second signal, with its number', async () => {
    const db = await useTestDatabase();
    const service = await spawnService(environment(db));
    const { users, projects } = useClients(service.grpc);
    const actor = await newUser({ users } as ReturnType<typeof clientsOn>);
    const { project } = await projects.createProject({ name: 'P', language: 'en' }, { actor });
    const id = project?.id ?? '';
    const blocker = await connectAs(db.adminUrl);
    await blocker.query('begin');
    await blocker.query('select from jeex.projects where id = $1 for update', [id]);
    const inFlight = projects.updateProject({ project: { id, name: 'Lost' } }, { actor });
    inFlight.catch(() => {});
    await until(() => isBlocked(blocker), 'the call waits for the lock');
    let ended = false;
    const exited = service.exited.finally(() => {
      ended = true;
    });
    await until(() => ended || !service.process.kill('SIGTERM'), 'it has ended');
    assert.equal(await exited, 143);
    await assert.rejects(inFlight, { code: 14 });
  });
});

describe('an ephemeral service', () => {
  it('says where it is in one line, and ends with its standard input', async () => {
    const service = await spawnService({}, ['--ephemeral']);
    assert.ok(await newUser(useClients(service.grpc)));
    service.process.stdin?.end();
    assert.equal(await service.exited, 0);
  });
});

describe('a start that cannot be', () => {
  const REFUSED: readonly (readonly [string, Readonly<Record<string, string>>, RegExp])[] = [
    [
      'an address that others reach, without authentication',
      { GRPC_LISTEN: '0.0.0.0:0' },
      /GRPC_LISTEN.*loopback.*AUTH_JWKS/s,
    ],
    ['several mistakes at once', { POOL_SIZE: 'many', LOG_LEVEL: 'loud' }, /POOL_SIZE(.|\n)*LOG_LEVEL/],
    [
      'a database that is not there',
      {
        DATABASE_URL: 'postgres://jeex_app:hidden-secret@127.0.0.1:1/jeex',
        MIGRATION_DATABASE_URL: 'postgres://jeex_owner:hidden-secret@127.0.0.1:1/jeex',
        ENCRYPTION_KEYS: ENCRYPTION_KEY,
      },
      /ECONNREFUSED/,
    ],
  ];
  for (const [what, env, says] of REFUSED) {
    it(`for ${what}, is refused with the reason and no secret`, async () => {
      await assert.rejects(spawnService(env), (error: Error) => {
        assert.match(error.message, says);
        assert.doesNotMatch(error.message, /hidden-secret/);
        return true;
      });
    });
  }
});
