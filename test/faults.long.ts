import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { type DescMethod, equals, type Message } from '@bufbuild/protobuf';
import { z } from 'zod';
import { createDatabase } from '../src/db/pool.ts';
import { sql, statement } from '../src/db/statement.ts';
import { Refusal } from '../src/refusal.ts';
import { useEffects } from './support/effects.ts';
import { useExamples } from './support/examples.ts';
import { type Fault, useFaultProxy } from './support/fault-proxy.ts';
import { callOf, isRead, keyOf, METHODS } from './support/methods.ts';
import { useTestDatabase } from './support/postgres.ts';
import { useService } from './support/service.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();
const proxy = await useFaultProxy(db.urlAs('app'));
const service = await useService({ db, appUrl: () => proxy.url });
const effectOf = await useEffects(db);
const exampleOf = useExamples(service);

const unary = METHODS.filter(({ methodKind }) => methodKind === 'unary');
const mutations = unary.filter((method) => !isRead(method));
/** Answered from what the monitor knows. */
const WITHOUT_STATEMENT = new Set(['DatabaseService/GetDatabaseHealth', 'DatabaseService/GetHealthHistory']);
const reads = unary.filter((method) => isRead(method) && !WITHOUT_STATEMENT.has(keyOf(method)));

/** Replies that are lost in all, at least one of each write: FAULT_REPLIES=200 for what is promised. */
const ROUNDS = Math.ceil(Number(process.env.FAULT_REPLIES ?? 1) / mutations.length);

/** What the service asks for by itself, beside any call. */
const ITS_OWN =
  /^(?:readiness|sealing|role_check|pool_limits|requests|retention)\.|^executions\.sweep$|purge_due|index_heads/;

const executions = (): ReadonlyMap<string, number> => new Map(proxy.executions);

/** What was executed beyond `before`, but for the service's own. */
const executedSince = (before: ReadonlyMap<string, number>): Readonly<Record<string, number>> =>
  Object.fromEntries(
    [...proxy.executions]
      .map(([name, count]) => [name, count - (before.get(name) ?? 0)] as const)
      .filter(([name, count]) => count > 0 && !ITS_OWN.test(name)),
  );

interface Usual {
  readonly statement: string;
  readonly effect: Readonly<Record<string, number>>;
}
const known = new Map<DescMethod, Usual>();

/** What a call of a method does when nothing is wrong: its statement, and its effect. */
const usual = async (method: DescMethod): Promise<Usual> => {
  const found = known.get(method);
  if (found) return found;
  const { request, options } = await exampleOf(method);
  let statement = '';
  const effect = await effectOf(async () => {
    const before = executions();
    await callOf(service, method)(request, options);
    [statement = ''] = Object.keys(executedSince(before));
  });
  assert.notEqual(statement, '', 'the call executes a statement');
  known.set(method, { statement, effect });
  return { statement, effect };
};

/** Calls a method while its statement meets a fault, and tells how often that was executed, and with what effect. */
const meet = async (
  method: DescMethod,
  { nth, fault, requestId }: { nth: number | readonly number[]; fault: Fault; requestId?: string },
) => {
  const { statement, effect: expected } = await usual(method);
  const { request, options } = await exampleOf(method);
  const call = () => callOf(service, method)({ ...request, ...(requestId && { requestId }) }, options);
  const before = executions();
  proxy.inflict(statement, nth, fault);
  let answer: Message | undefined;
  let error: unknown;
  const effect = await effectOf(async () => {
    await call().then(
      (answered) => (answer = answered),
      (thrown) => (error = thrown),
    );
  });
  return { answer, error, effect, expected, tries: executedSince(before)[statement], again: call };
};

const NOTHING_MOVED = { ...(await effectOf(async () => {})) };
const LOST = { reason: 'DATABASE_UNAVAILABLE', metadata: { outcome: 'unknown' }, retryable: true };

/** Of an error, what `LOST` says. */
const seen = (error: unknown) => {
  const { reason, metadata, retryable } = error as typeof LOST;
  return { reason, metadata, retryable };
};

describe('a write whose reply is lost after the commit', () => {
  for (const method of mutations) {
    it(`${keyOf(method)}: with a request_id its caller notices nothing, and it is applied once`, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const met = await meet(method, { nth: 1, fault: { kind: 'close after' }, requestId: randomUUID() });
        assert.equal(met.error, undefined);
        assert.deepEqual(met.effect, met.expected);
        assert.equal(met.tries, 2);
        const again = await met.again();
        assert.ok(met.answer && equals(method.output, met.answer, again), 'the first answer is given again');
      }
    });

    it(`${keyOf(method)}: without one its caller is told that nobody knows, and it is not sent again`, async () => {
      const met = await meet(method, { nth: 1, fault: { kind: 'close after' } });
      assert.deepEqual(seen(met.error), LOST);
      assert.deepEqual(met.effect, met.expected);
      assert.equal(met.tries, 1);
    });
  }
});

describe('a write that is lost on its way', () => {
  for (const method of mutations) {
    it(`${keyOf(method)}: with a request_id its caller notices nothing; without one it is not sent again`, async () => {
      const met = await meet(method, { nth: 1, fault: { kind: 'close before' }, requestId: randomUUID() });
      assert.deepEqual([met.error, met.tries], [undefined, 2]);
      assert.deepEqual(met.effect, met.expected);
      const bare = await meet(method, { nth: 1, fault: { kind: 'close before' } });
      assert.deepEqual(seen(bare.error), LOST);
      assert.deepEqual(bare.effect, NOTHING_MOVED);
      assert.equal(bare.tries, 1);
    });
  }
});

describe('a write that PostgreSQL rolls back for others’ sake', () => {
  for (const method of mutations) {
    it(`${keyOf(method)}: is sent again, with a request_id or without`, async () => {
      for (const [sqlstate, nth] of [
        ['40001', [1]],
        ['40P01', [1, 2]],
      ] as const) {
        const met = await meet(method, { nth, fault: { kind: 'error', sqlstate } });
        assert.deepEqual([met.error, met.tries], [undefined, nth.length + 1], sqlstate);
        assert.deepEqual(met.effect, met.expected);
      }
    });
  }

  it('each time: its caller is told after the fourth', async () => {
    const [method] = mutations;
    assert.ok(method);
    const met = await meet(method, { nth: [1, 2, 3, 4, 5], fault: { kind: 'error', sqlstate: '40P01' } });
    proxy.clear();
    const { reason, metadata } = met.error as typeof LOST;
    assert.deepEqual([reason, metadata, met.tries], ['CONTENTION', { outcome: 'not_applied' }, 4]);
    assert.deepEqual(met.effect, NOTHING_MOVED);
  });
});

describe('a write that fails otherwise after its first try was lost', () => {
  it('is of unknown outcome still: the first try may yet take effect', async () => {
    const method = mutations.find(({ name }) => name === 'AppendVersion');
    assert.ok(method);
    const { statement } = await usual(method);
    const { request, options } = await exampleOf(method);
    proxy.inflict(statement, 1, { kind: 'close before' });
    proxy.inflict(statement, 2, { kind: 'error', sqlstate: '55P03' });
    await assert.rejects(callOf(service, method)({ ...request, requestId: randomUUID() }, options), {
      reason: 'CONTENTION',
      metadata: { outcome: 'unknown' },
    });
  });
});

describe('a read whose connection is lost', () => {
  for (const method of reads) {
    it(`${keyOf(method)}: is answered, and its caller notices nothing`, async () => {
      for (const kind of ['close before', 'close after'] as const) {
        const met = await meet(method, { nth: 1, fault: { kind } });
        assert.deepEqual([met.error, met.tries], [undefined, 2], kind);
      }
    });
  }
});

describe('a statement that gets lost in silence', () => {
  it('is given up at the deadline, and its connection too; the next call is served', async () => {
    const method = reads.find(({ name }) => name === 'GetProject');
    assert.ok(method);
    const { statement } = await usual(method);
    const { request, options } = await exampleOf(method);
    proxy.inflict(statement, 1, { kind: 'hang' });
    await assert.rejects(callOf(service, method)(request, { ...options, timeout: 100 }), { code: 4 });
    await callOf(service, method)(request, options);
    proxy.clear();
  });
});

describe('a cancel that overtakes its statement', () => {
  const nap = statement({
    name: 'faults.nap',
    params: {},
    row: z.object({}),
    sql: () => sql.fragment`select 1 as one from (select pg_sleep(30)) as nap`,
  });

  it('is sent again: the statement ends, and was not applied', async () => {
    const pool = await createDatabase({ url: proxy.url, size: 1 });
    const call = new AbortController();
    proxy.inflict(nap.name, 1, { kind: 'late', ms: 40 });
    const napping = assert.rejects(pool.run(nap, {}, call), { reason: 'SHUTTING_DOWN', outcome: 'not_applied' });
    await until(() => pool.state().acquisitions === 1, 'the statement is sent');
    call.abort(new Refusal('SHUTTING_DOWN', 'enough'));
    await napping;
    await pool.end();
  });
});

describe('a connection that is made for a call that ends meanwhile', () => {
  const one = statement({
    name: 'faults.answer',
    params: {},
    row: z.object({ one: z.number() }),
    sql: () => sql.fragment`select 1 as one`,
  });

  it('carries no statement, and serves the next', async () => {
    const pool = await createDatabase({ url: proxy.url, size: 1 });
    const call = new AbortController();
    const ended = assert.rejects(pool.run(one, {}, call), { reason: 'SHUTTING_DOWN', outcome: 'not_applied' });
    call.abort(new Refusal('SHUTTING_DOWN', 'enough'));
    await ended;
    assert.equal(proxy.executions.get(one.name) ?? 0, 0);
    await pool.run(one, {});
    assert.deepEqual([proxy.executions.get(one.name), pool.state().connects], [1, 1]);
    await pool.end();
  });
});
