import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { z } from 'zod';
import { createDatabase } from '../src/db/pool.ts';
import { createSlots } from '../src/db/slots.ts';
import { sql, statement } from '../src/db/statement.ts';
import { createLog } from '../src/log.ts';
import { watchReadiness } from '../src/readiness.ts';
import { Refusal } from '../src/refusal.ts';
import { createHealth } from '../src/rpc/health.ts';
import { useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';

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

const db = await useTestDatabase();

describe('slots', () => {
  it('run no more than the limit at once, in order, and let whoever waits leave', async () => {
    const slots = createSlots(2);
    const order: number[] = [];
    let running = 0;
    const gates = Array.from({ length: 5 }, () => Promise.withResolvers<void>());
    const leaver = new AbortController();
    const works = gates.map((gate, i) =>
      slots.run(
        async () => {
          running += 1;
          assert.ok(running <= 2);
          order.push(i);
          await gate.promise;
          running -= 1;
        },
        i === 3 ? leaver.signal : undefined,
      ),
    );
    assert.equal(slots.waiting, 3);
    leaver.abort(new Error('gone'));
    await assert.rejects(works[3] as Promise<void>, { message: 'gone' });
    for (const gate of gates) gate.resolve();
    await Promise.all(works.filter((_, i) => i !== 3));
    assert.deepEqual(order, [0, 1, 2, 4]);
  });
});

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
    const running = pool.run(nap, { seconds: 30 }, call.signal);
    const waiting = pool.run(nap, { seconds: 30 }, call.signal);
    const settled = Promise.allSettled([running, waiting]);
    for (let i = 0; i < 500 && (await napping()) === 0; i++) await sleep(10);
    assert.equal(await napping(), 1);
    call.abort(new Refusal('SHUTTING_DOWN', 'stopping'));
    for (const { reason } of (await settled) as PromiseRejectedResult[]) {
      assert.equal(reason.reason, 'SHUTTING_DOWN');
      assert.equal(reason.outcome, 'not_applied');
    }
    assert.equal(await napping(), 0);
    assert.deepEqual(await pool.run(one, {}), [{ one: 1 }]);
    await watcher.end();
    await pool.end();
  });

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
    const lost = assert.rejects(pool.run(nap, { seconds: 0 }, call.signal), {
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
