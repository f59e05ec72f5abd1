import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { z } from 'zod';
import { CircuitOpen, createBreaker } from '../src/db/breaker.ts';
import { ConnectFailure } from '../src/db/connect-failure.ts';
import { createDatabase } from '../src/db/pool.ts';
import { sql, statement } from '../src/db/statement.ts';
import { createLog } from '../src/log.ts';
import { watchReadiness } from '../src/readiness.ts';
import { createHealth } from '../src/rpc/health.ts';
import { useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();

const one = statement({
  name: 'test.answer',
  params: {},
  row: z.object({ one: z.number() }),
  sql: () => sql.fragment`select 1 as one`,
});
const wrong = statement({
  name: 'test.wrong',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`select 1 / (select 0) as wrong`,
});

/** A breaker, what it has told, and the hand of its clock. */
const watched = () => {
  const told: string[] = [];
  const tell = (level: string) => () => void told.push(level);
  let time = 0;
  const breaker = createBreaker({ info: tell('info'), warn: tell('warn') } as never, () => time);
  const pass = (ms: number) => {
    time += ms;
  };
  return { told, breaker, pass };
};

const down = new ConnectFailure('down', Object.assign(new Error('down'), { code: 'ECONNREFUSED' }));
const full = new ConnectFailure('full', Object.assign(new Error('full'), { code: '53300' }));
const failWith = (failure: Error) => async () => {
  throw failure;
};
const connected = async () => 'connected';
/** Until the next probe at most, in milliseconds. */
const PROBE_MS = 250;

const opened = async () => {
  const both = watched();
  for (let i = 0; i < 3; i++) await assert.rejects(both.breaker.attempt(failWith(down)), down);
  return both;
};

describe('the circuit breaker', () => {
  it('opens after three attempts in a row have failed, and then fails at once without trying', async () => {
    const { breaker, told } = watched();
    for (let i = 0; i < 2; i++) await assert.rejects(breaker.attempt(failWith(down)), down);
    assert.equal(breaker.state, 'closed');
    breaker.reached();
    for (let i = 0; i < 3; i++) await assert.rejects(breaker.attempt(failWith(down)), down);
    assert.equal(breaker.state, 'open');
    await assert.rejects(
      breaker.attempt(() => assert.fail('it tried')),
      CircuitOpen,
    );
    assert.deepEqual(told, ['warn']);
  });

  it('lets one probe at a time through, and whoever comes once it has connected', async () => {
    const { breaker, told, pass } = await opened();
    pass(PROBE_MS);
    const gate = Promise.withResolvers<string>();
    const probe = breaker.attempt(() => gate.promise);
    assert.equal(breaker.state, 'half_open');
    pass(10 * PROBE_MS);
    await assert.rejects(breaker.attempt(connected), CircuitOpen);
    gate.resolve('connected');
    assert.equal(await probe, 'connected');
    assert.equal(await breaker.attempt(connected), 'connected');
    breaker.reached();
    assert.equal(breaker.state, 'closed');
    assert.deepEqual(told, ['warn', 'info']);
  });

  it('has others wait for a probe that has just begun', async () => {
    const { breaker, pass } = await opened();
    for (const connects of [false, true]) {
      pass(PROBE_MS);
      const gate = Promise.withResolvers<string>();
      const probe = breaker.attempt(() => gate.promise);
      const other = breaker.attempt(connected);
      if (connects) gate.resolve('connected');
      else gate.reject(down);
      if (connects) assert.deepEqual(await Promise.all([probe, other]), ['connected', 'connected']);
      else await Promise.all([assert.rejects(probe, down), assert.rejects(other, CircuitOpen)]);
    }
  });

  it('opens again with the first failure behind a probe that connected: a pooler lets in whoever comes', async () => {
    const { breaker, told, pass } = await opened();
    for (let probes = 0; probes < 5; probes++) {
      pass(PROBE_MS);
      assert.equal(await breaker.attempt(connected), 'connected');
      assert.equal(breaker.state, 'half_open');
      breaker.missed(down);
      await assert.rejects(breaker.attempt(connected), CircuitOpen);
    }
    assert.deepEqual(told, ['warn'], 'told once');
  });

  it('probes again and again while the database is away, a quarter of a second apart at most', async () => {
    const { breaker, told, pass } = await opened();
    for (let probes = 0; probes < 20; probes++) {
      await assert.rejects(breaker.attempt(connected), CircuitOpen, 'not at once');
      pass(PROBE_MS);
      await assert.rejects(breaker.attempt(failWith(down)), down);
    }
    assert.equal(breaker.state, 'open');
    assert.deepEqual(told, ['warn']);
  });

  it('stays closed before a server that is full, and closes when it turns out to be', async () => {
    const { breaker } = watched();
    for (let i = 0; i < 9; i++) await assert.rejects(breaker.attempt(failWith(full)), full);
    assert.equal(breaker.state, 'closed');
    const { breaker: other, pass } = await opened();
    pass(PROBE_MS);
    await assert.rejects(other.attempt(failWith(full)), full);
    assert.equal(other.state, 'closed');
  });
});

describe('a pool whose database is away', () => {
  it('stops connecting, says so, and serves again by itself', async () => {
    const proxy = await useProxy(db.appUrl);
    const told: string[] = [];
    const breaker = createBreaker({ warn: () => told.push('warn'), info: () => told.push('info') } as never);
    const pool = await createDatabase({ url: proxy.url, size: 8, breaker });
    await pool.run(one, {});
    proxy.down = true;
    const calls = await Promise.allSettled(Array.from({ length: 500 }, () => pool.run(one, {})));
    for (const { reason } of calls as PromiseRejectedResult[]) assert.equal(reason.reason, 'DATABASE_UNAVAILABLE');
    const { breaker: state, failedConnects } = pool.state();
    assert.equal(state, 'open');
    assert.ok(failedConnects < 10, `${failedConnects} attempts for 500 calls`);
    proxy.down = false;
    const isServed = () =>
      pool.run(one, {}).then(
        () => true,
        () => false,
      );
    await until(isServed, 'calls are served again');
    assert.equal(pool.state().breaker, 'closed');
    assert.deepEqual(told, ['warn', 'info']);
    await pool.end();
  });

  it('goes on with the connections it has, whose answers close the circuit', async () => {
    const { breaker } = watched();
    const pool = await createDatabase({ url: db.appUrl, size: 1, breaker });
    await pool.run(one, {});
    for (let i = 0; i < 3; i++) breaker.missed(down);
    assert.equal(pool.state().breaker, 'open');
    assert.deepEqual(await pool.run(one, {}), [{ one: 1 }]);
    assert.equal(pool.state().breaker, 'closed');
    await pool.end();
  });

  it('connects at once when readiness has had its answer', async () => {
    const { breaker } = await opened();
    const health = createHealth([]);
    const log = createLog('silent');
    const readiness = await watchReadiness({
      url: db.appUrl,
      requiredVersion: 1,
      health,
      onAnswer: breaker.reached,
      log,
    });
    assert.equal(breaker.state, 'closed');
    await readiness.stop();
  });
});

describe('connections', () => {
  it('are made four at a time', async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    after(() => server.close());
    const { port } = server.address() as AddressInfo;
    const pool = await createDatabase({ url: `postgres://jeex_app@127.0.0.1:${port}/jeex`, size: 10 });
    const gone = new AbortController();
    const calls = Promise.allSettled(Array.from({ length: 10 }, () => pool.run(one, {}, gone)));
    await until(() => sockets.length === 4, 'the first have come');
    gone.abort(new Error('enough'));
    for (const socket of sockets) socket.destroy();
    await calls;
    assert.equal(sockets.length, 4, 'the others have left the queue');
    await pool.end();
  });

  it('outlive what a statement fails with', async () => {
    const pool = await createDatabase({ url: db.appUrl, size: 1 });
    for (let i = 0; i < 5; i++) await assert.rejects(pool.run(wrong, {}), { reason: 'INTERNAL' });
    assert.deepEqual(await pool.run(one, {}), [{ one: 1 }]);
    assert.equal(pool.state().connects, 1);
    await pool.end();
  });
});
