import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { Client } from 'pg';
import { createConsole } from '../src/db/pgbouncer.ts';
import { withLogin } from '../src/db/roles.ts';
import type { Result } from '../src/doctor/check.ts';
import { runDoctor } from '../src/doctor/doctor.ts';
import { examine } from '../src/doctor/patient.ts';
import { createLog } from '../src/log.ts';
import { migrate } from '../src/migrator/migrate.ts';
import { startPooled } from './support/pooled.ts';
import { type Proxy as Between, useProxy } from './support/proxy.ts';
import { ENCRYPTION_KEY, useService } from './support/service.ts';
import { NO_DOCKER } from './support/stack.ts';
import { until } from './support/until.ts';

const named = (results: readonly Result[], name: string): Result => {
  const result = results.find((one) => one.name === name);
  assert.ok(result, name);
  return result;
};

/** What one check says, each fault with its mending. */
const told = ({ status, faults }: Result): string =>
  [status, ...faults.map(({ says, mend }) => `${says} -> ${mend}`)].join('\n');

/** The same URL with the address of a proxy, which passes TLS on as it comes. */
const proxied = async (url: string): Promise<{ proxy: Between; url: string }> => {
  const bare = new URL(url);
  const { search } = bare;
  bare.search = '';
  const proxy = await useProxy(bare.href);
  return { proxy, url: `${proxy.url}${search}` };
};

describe('PgBouncer and PostgreSQL as they are deployed', { skip: NO_DOCKER }, async () => {
  if (NO_DOCKER) return;
  const pooled = await startPooled();
  after(() => pooled.stop());
  const { adminUrl, passwords, pooler, consoleUrl } = pooled;
  const appUrl = withLogin(pooler.url, 'jeex', 'jeex_app', passwords.app);
  const ownerUrl = withLogin(adminUrl, 'jeex', 'jeex_owner', passwords.owner);
  const env = {
    DATABASE_URL: appUrl,
    MIGRATION_DATABASE_URL: ownerUrl,
    LISTEN_DATABASE_URL: withLogin(adminUrl, 'jeex', 'jeex_app', passwords.app),
    ADMIN_DATABASE_URL: adminUrl,
    PGBOUNCER_ADMIN_URL: consoleUrl,
    ENCRYPTION_KEYS: ENCRYPTION_KEY,
    POOL_SIZE: '20',
  };
  await migrate(ownerUrl, { mode: 'auto' });

  const examined = async (changes: Readonly<Record<string, string>> = {}): Promise<readonly Result[]> => {
    await using opened = new AsyncDisposableStack();
    const { signal } = new AbortController();
    return await runDoctor(examine({ ...env, ...changes }, opened, signal), () => {}, signal);
  };

  describe('the doctor', () => {
    it('finds nothing wrong but what the tests leave out: what lasts', async () => {
      const results = await examined();
      assert.deepEqual(
        results.filter(({ status }) => status === 'failed' || status === 'warning').map(({ name }) => name),
        ['durability', 'archive'],
        results.map((result) => `${result.name}: ${told(result)}`).join('\n'),
      );
      assert.equal(named(results, 'connection').seen, 'as jeex_app, through a pooler');
      assert.equal(named(results, "the owner's connection").seen, 'as jeex_owner, directly');
      assert.equal(named(results, "the listener's connection").seen, 'as jeex_app, directly');
      assert.equal(named(results, 'TLS').seen, 'from here: TLSv1.3; into PostgreSQL: TLSv1.3');
      assert.match(named(results, 'PgBouncer').seen, /^1\.\d+\.\d+, transaction mode$/);
      assert.match(named(results, 'arithmetic').seen, /^1 × \(20 \+ 5 \+ 1 \+ 2\) \+ 22 = 50 of \d+ connections$/);
      assert.equal(named(results, 'pgaudit').seen, 'logs');
    });

    it('sees a pool that PgBouncer does not have, and replicas that PostgreSQL does not have room for', async () => {
      const results = await examined({ POOL_SIZE: '30', MAX_REPLICAS: '99' });
      const said = told(named(results, 'arithmetic'));
      assert.match(
        said,
        /POOL_SIZE is 30 and PgBouncer's pool 20: .* -> lower POOL_SIZE to 20, or raise default_pool_size to 30/,
      );
      assert.match(
        said,
        /99 × \(20 \+ 5 \+ 1 \+ 2\) .* -> lower MAX_REPLICAS to 1\d, or raise max_connections to 2\d+/,
      );
    });

    it('sees an owner that goes through the pooler', async () => {
      const results = await examined({ MIGRATION_DATABASE_URL: appUrl });
      assert.match(
        told(named(results, "the owner's connection")),
        /^failed\nit goes through a pooler.* -> name PostgreSQL's own/,
      );
    });

    it('sees a listener that goes through the pooler', async () => {
      const results = await examined({ LISTEN_DATABASE_URL: appUrl });
      assert.match(
        told(named(results, "the listener's connection")),
        /^failed\nit goes through a pooler.* -> name PostgreSQL's own/,
      );
    });

    it('sees a service that goes past the pooler, and knows no arithmetic of a pooler that is not named', async () => {
      const past = withLogin(adminUrl, 'jeex', 'jeex_app', passwords.app);
      assert.match(told(named(await examined({ DATABASE_URL: past }), 'connection')), /^warning\n.*goes past it/);
      const unnamed = named(await examined({ PGBOUNCER_ADMIN_URL: '' }), 'arithmetic');
      assert.match(`${unnamed.status} ${unnamed.seen}`, /^skipped PGBOUNCER_ADMIN_URL is unset/);
    });
  });

  describe('the health of the database', async () => {
    const lines: Record<string, unknown>[] = [];
    const log = createLog('info', { write: (line) => void lines.push(JSON.parse(line)) });
    const { proxy, url } = await proxied(consoleUrl);
    const db = { adminUrl, ownerUrl, appUrl, urlAs: () => '', name: 'jeex', drop: async () => {} };
    const service = await useService({ db, env: { ...env, PGBOUNCER_ADMIN_URL: url }, log });
    const poolsOf = async () => (await service.database.getDatabaseHealth({})).health?.pgbouncerPools ?? [];
    const said = (message: RegExp): number => lines.filter(({ msg }) => message.test(String(msg))).length;

    it('names the pools of PgBouncer, by one connection that is kept', async () => {
      const { connections } = proxy;
      for (let call = 0; call < 5; call += 1) {
        const pool = (await poolsOf()).find(({ user }) => user === 'jeex_app');
        assert.ok(pool, 'the pool of the service');
        assert.deepEqual([pool.database, pool.poolMode, pool.clientsWaiting], ['jeex', 'transaction', 0n]);
        assert.ok(pool.clientsActive >= 1n && pool.serversActive + pool.serversIdle >= 1n);
        assert.deepEqual([pool.maxWait?.seconds, pool.maxWait?.nanos], [0n, 0]);
      }
      assert.equal(proxy.connections, connections);
      assert.equal(said(/pools do not fit|cannot be asked/), 0);
    });

    it('tells what goes through PgBouncer, as its console tells anybody', async () => {
      const client = new Client({ connectionString: consoleUrl });
      await client.connect();
      // The averages are of a minute, and the readiness check asks twice a second.
      await until(
        async () => {
          const { health } = await service.database.getDatabaseHealth({});
          const stats = health?.pgbouncerStats.find(({ database }) => database === 'jeex');
          const { rows } = await client.query('show stats');
          const told = rows.find(({ database }) => database === 'jeex');
          const { seconds = 0n, nanos = 0 } = stats?.queryTime ?? {};
          return (
            Number(told.avg_query_count) > 0 &&
            stats?.queriesPerSecond === Number(told.avg_query_count) &&
            stats.transactionsPerSecond === Number(told.avg_xact_count) &&
            Number(seconds) * 1_000_000 + nanos / 1000 === Number(told.avg_query_time)
          );
        },
        'both tell the same',
        90_000,
      );
      await client.end();
    });

    it('goes on without them while the console is gone or silent, and is told them again afterwards', async () => {
      for (const outage of ['down', 'silent'] as const) {
        proxy[outage] = true;
        await until(async () => (await poolsOf()).length === 0, `the pools are gone: ${outage}`);
        assert.equal((await service.database.getDatabaseHealth({})).health?.postgresVersion.split('.')[0], '18');
        proxy[outage] = false;
        await until(async () => (await poolsOf()).length > 0, `the pools are there again after: ${outage}`);
      }
      assert.deepEqual([said(/pools are not known/), said(/answers again/)], [2, 2]);
    });
  });

  it('answer their console in turn, however many ask', async () => {
    const console = createConsole(consoleUrl);
    try {
      const [settings, ...pools] = await Promise.all([console.settings(), console.pools(), console.pools()]);
      assert.equal(settings.config.get('pool_mode'), 'transaction');
      assert.equal(pools.length, 2);
    } finally {
      await console.end();
    }
  });

  it('end in time although nobody answers the goodbye', async () => {
    const { proxy, url } = await proxied(consoleUrl);
    const console = createConsole(url);
    await console.pools();
    proxy.silent = true;
    await console.end();
    await assert.rejects(createConsole(url).pools(), /console does not answer "show pools"/);
  });
});
