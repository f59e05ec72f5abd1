import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { z } from 'zod';
import { createDatabase } from '../src/db/pool.ts';
import { createRetries } from '../src/db/retry.ts';
import { sql, statement } from '../src/db/statement.ts';
import { createLog } from '../src/log.ts';
import { watchReadiness } from '../src/readiness.ts';
import { Refusal } from '../src/refusal.ts';
import { createHealth } from '../src/rpc/health.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { until } from './support/until.ts';

const one = statement({
  name: 'test.one',
  params: {},
  row: z.object({ one: z.number() }),
  sql: () => sql.fragment`select 1 as one`,
});
const nap = statement({
  name: 'test.nap',
  params: { seconds: 'float8' },
  row: z.object({}),
  sql: (p) => sql.fragment`select 1 as one from (select pg_sleep(${p.seconds})) as nap`,
});
const stubborn = statement({
  name: 'test.stubborn',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`select 1 as one from (select stubborn()) as stubborn`,
});

const db = await useTestDatabase();

describe('the pool', () => {
  it('fails every waiting caller when no connection can be made', async () => {
    const url = new URL(db.appUrl);
    url.pathname = '/no_such_database';
    const pool = await createDatabase({ url: url.href, size: 1 });
    const calls = await Promise.allSettled(Array.from({ length: 5 }, () => pool.run(one, {})));
    for (const { reason } of calls as PromiseRejectedResult[]) {
      assert.deepEqual([reason.reason, reason.outcome], ['DATABASE_UNAVAILABLE', 'not_applied']);
    }
    await pool.end();
  });

  it('tells a call that waited too long to come again, before its deadline', async () => {
    const pool = await createDatabase({ url: db.appUrl, size: 1, waitMs: 10 });
    const holding = new AbortController();
    const held = assert.rejects(pool.run(nap, { seconds: 30 }, holding), { reason: 'DEADLINE' });
    await until(() => pool.state().acquisitions === 1, 'the connection is in use');
    await assert.rejects(pool.run(one, {}, { signal: AbortSignal.timeout(30_000) }), {
      reason: 'OVERLOADED',
      outcome: 'not_applied',
    });
    const { waiting, acquisitions, acquisitionTimeouts } = pool.state();
    assert.deepEqual(
      { waiting, acquisitions, acquisitionTimeouts },
      { waiting: 0, acquisitions: 1, acquisitionTimeouts: 1 },
    );
    holding.abort(new Error('enough'));
    await held;
    assert.deepEqual(await pool.run(one, {}), [{ one: 1 }]);
    await pool.end();
  });

  it('counts what calls waited for their connections, and the connections it made', async () => {
    const pool = await createDatabase({ url: db.appUrl, size: 1 });
    await pool.run(one, {});
    const first = pool.state();
    assert.deepEqual([first.acquisitions, first.connects, first.failedConnects, first.limit], [1, 1, 0, 1]);
    assert.ok(first.acquisitionWaitMs > 0, 'making a connection takes its time');
    const began = performance.now();
    const napping = pool.run(nap, { seconds: 0.05 });
    const waiting = pool.run(one, {});
    await napping;
    const atLeast = performance.now() - began;
    await waiting;
    const then = pool.state();
    assert.deepEqual([then.acquisitions, then.connects], [3, 1]);
    assert.ok(then.acquisitionWaitMs - first.acquisitionWaitMs >= atLeast * 0.9, 'the second waited for the first');
    await pool.end();
    const nowhere = new URL(db.appUrl);
    nowhere.pathname = '/no_such_database';
    const failing = await createDatabase({ url: nowhere.href, size: 1 });
    await assert.rejects(failing.run(one, {}));
    const failed = failing.state();
    assert.deepEqual([failed.acquisitions, failed.connects, failed.failedConnects], [0, 1, 1]);
    await failing.end();
  });

  it('closes a connection that nobody uses, and makes another for the next call', async () => {
    const pool = await createDatabase({ url: db.appUrl, size: 1, idleMs: 20 });
    await pool.run(one, {});
    await until(() => pool.state().idle === 0, 'the idle connection is closed');
    assert.deepEqual(await pool.run(one, {}), [{ one: 1 }]);
    assert.equal(pool.state().connects, 2);
    await pool.end();
  });

  it('cancels a statement in PostgreSQL when its call ends, says why, and has the slot back', async () => {
    const pool = await createDatabase({ url: db.appUrl, size: 1 });
    const watcher = new Client({ connectionString: db.adminUrl });
    await watcher.connect();
    const napping = async () => {
      const { rows } = await watcher.query(
        `select count(*)::int as n from pg_stat_activity
         where datname = current_database() and query like '%pg_sleep(%' and state = 'active' and pid <> pg_backend_pid()`,
      );
      return rows[0].n as number;
    };
    const call = new AbortController();
    const running = pool.run(nap, { seconds: 30 }, call);
    const waiting = pool.run(nap, { seconds: 30 }, call);
    const settled = Promise.allSettled([running, waiting]);
    for (let i = 0; i < 500 && (await napping()) === 0; i++) await sleep(10);
    assert.equal(await napping(), 1);
    call.abort(new Refusal('SHUTTING_DOWN', 'stopping'));
    for (const { reason } of (await settled) as PromiseRejectedResult[]) {
      assert.equal(reason.reason, 'SHUTTING_DOWN');
      assert.equal(reason.outcome, 'not_applied');
    }
    // PostgreSQL answers a moment before it shows that it is done.
    await until(async () => (await napping()) === 0, 'nothing runs any more');
    assert.deepEqual(await pool.run(one, {}), [{ one: 1 }]);
    await watcher.end();
    await pool.end();
  });

  for (const [why, code] of [
    ['a conflict', '40001'],
    ['an outdated plan', '26000'],
  ] as const) {
    it(`does not send a statement again after ${why} when its call has ended meanwhile`, async () => {
      const pool = await createDatabase({ url: db.appUrl, size: 1, retries: createRetries({ debug: () => {} }) });
      const admin = await connectAs(db.adminUrl);
      // A cancel that arrives while the statement is failing for another reason.
      await admin.query(`
        create or replace function stubborn() returns void language plpgsql as $$
        begin
          perform pg_sleep(30);
        exception when query_canceled then
          raise exception 'failed otherwise' using errcode = '${code}';
        end $$;
        grant execute on function stubborn to jeex_app`);
      const call = new AbortController();
      const running = assert.rejects(pool.run(stubborn, {}, call), {
        reason: 'SHUTTING_DOWN',
        outcome: 'not_applied',
      });
      const sleeping = async () =>
        (await admin.query(`select from pg_stat_activity where wait_event = 'PgSleep' and query like '%stubborn()%'`))
          .rowCount === 1;
      await until(sleeping, 'the statement runs');
      call.abort(new Refusal('SHUTTING_DOWN', 'stopping'));
      await running;
      await pool.end();
    });
  }

  it('has its slot back, and readiness turns, when the database falls silent', async () => {
    const proxy = await useProxy(db.appUrl);
    const pool = await createDatabase({ url: proxy.url, size: 1 });
    const health = createHealth([]);
    const readiness = await watchReadiness({ url: proxy.url, requiredVersion: 1, health, log: createLog('silent') });
    assert.equal(health.ready, true);
    await pool.run(one, {});
    proxy.silent = true;
    const call = new AbortController();
    const sent = proxy.roundTrips;
    const lost = assert.rejects(pool.run(nap, { seconds: 0 }, call), {
      reason: 'DATABASE_UNAVAILABLE',
      outcome: 'unknown',
    });
    for (let i = 0; i < 500 && proxy.roundTrips === sent; i++) await sleep(1);
    call.abort(new Refusal('DEADLINE', 'too late', { outcome: 'unknown' }));
    await lost;
    for (let i = 0; i < 500 && health.ready; i++) await sleep(10);
    assert.equal(health.ready, false);
    proxy.silent = false;
    assert.deepEqual(await pool.run(one, {}), [{ one: 1 }]);
    for (let i = 0; i < 1000 && !health.ready; i++) await sleep(10);
    assert.equal(health.ready, true);
    await readiness.stop();
    await pool.end();
  });
});
