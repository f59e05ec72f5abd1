import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CircuitOpen } from '../src/db/breaker.ts';
import { ConnectFailure } from '../src/db/connect-failure.ts';
import { databaseRefusal } from '../src/db/errors.ts';
import { createRetries, isHarmless } from '../src/db/retry.ts';
import { Refusal } from '../src/refusal.ts';

const withoutLog = { debug: () => {} };

/** What a statement fails with on which PostgreSQL or the network said so. */
const failed = (said: { readonly code?: string; readonly message?: string }, sent = true): Refusal =>
  databaseRefusal(Object.assign(new Error(said.message ?? 'said'), said), 'test', sent);

const deadlock = failed({ code: '40P01' });
const lost = failed({ code: 'ECONNRESET' });
const neverSent = failed({ code: 'ECONNRESET' }, false);

/** Fails with these, one after the other, then answers. */
const failing = (...failures: readonly unknown[]) => {
  let tries = 0;
  const attempt = async () => {
    const failure = failures[tries];
    tries += 1;
    if (failure !== undefined) throw failure;
    return 'answered';
  };
  return {
    attempt,
    get tries() {
      return tries;
    },
  };
};

const HARMLESS = { statement: 'test', harmless: true };
const HARMFUL = { statement: 'test', harmless: false };

describe('which statements may run twice', () => {
  it('reads, and writes with a request_id', () => {
    assert.ok(isHarmless({ lane: 'read' }, {}));
    assert.ok(isHarmless({ lane: 'write' }, { request_id: 'x' }));
    assert.ok(!isHarmless({ lane: 'write' }, { request_id: null }));
    assert.ok(!isHarmless({ lane: 'write' }, {}));
  });
});

describe('a statement', () => {
  for (const [why, failure] of [
    ['a serialization failure', failed({ code: '40001' })],
    ['a deadlock', deadlock],
    ['a connection that was lost before it was sent', neverSent],
    ['a connection that was known to be broken', failed({ message: 'Client was closed and is not queryable' })],
  ] as const) {
    it(`is sent again after ${why}, whatever it does`, async () => {
      const statement = failing(failure, failure);
      assert.equal(await createRetries(withoutLog).run(HARMFUL, statement.attempt), 'answered');
      assert.equal(statement.tries, 3);
    });
  }

  it('whose connection was lost under way is sent again only where it may run twice', async () => {
    const retries = createRetries(withoutLog);
    assert.equal(await retries.run(HARMLESS, failing(lost, lost, lost).attempt), 'answered');
    const harmful = failing(lost);
    await assert.rejects(retries.run(HARMFUL, harmful.attempt), lost);
    assert.equal(harmful.tries, 1);
    assert.deepEqual({ ...retries.counts }, { contention: 0, connection: 3, exhausted: 0 });
  });

  for (const [why, failure] of [
    ['it waited too long for a lock', failed({ code: '55P03' })],
    ['it was cancelled', failed({ code: '57014' })],
    ['the disk is full', failed({ code: '53100' })],
    ['the pool is full', failed({ message: 'query_wait_timeout' })],
    ['it is wrong', failed({ code: '42601' })],
    ['it was refused', new Refusal('PROJECT_NOT_FOUND', 'no')],
    [
      'the circuit is open',
      databaseRefusal(new CircuitOpen(new ConnectFailure('down', new Error('down'))), 'test', false),
    ],
    ['the service has a mistake', new TypeError('a mistake')],
  ] as const) {
    it(`is not sent again when ${why}`, async () => {
      const statement = failing(failure);
      await assert.rejects(createRetries(withoutLog).run(HARMLESS, statement.attempt), failure);
      assert.equal(statement.tries, 1);
    });
  }

  it('is tried four times at most', async () => {
    const statement = failing(...Array(9).fill(deadlock));
    await assert.rejects(createRetries(withoutLog).run(HARMLESS, statement.attempt), deadlock);
    assert.equal(statement.tries, 4);
  });

  it('is not tried again once two seconds are over: its caller is told while there is time', async () => {
    let time = 0;
    const statement = failing(lost, lost);
    const retries = createRetries(withoutLog, () => time);
    const running = retries.run(HARMLESS, () => {
      time += 1_500;
      return statement.attempt();
    });
    await assert.rejects(running, lost);
    assert.equal(statement.tries, 2);
  });

  it('whose first try may have taken effect is of unknown outcome, whatever becomes of the next', async () => {
    const notFound = new Refusal('VERSION_CONFLICT', 'no', { metadata: { current_version: '3' } });
    await assert.rejects(createRetries(withoutLog).run(HARMLESS, failing(lost, neverSent, notFound).attempt), {
      reason: 'VERSION_CONFLICT',
      metadata: { current_version: '3' },
      outcome: 'unknown',
    });
  });

  it('waits no longer before it is sent again than its call lasts', async () => {
    const call = new AbortController();
    const tried: boolean[] = [];
    const running = createRetries(withoutLog).run({ ...HARMLESS, signal: call.signal }, async () => {
      tried.push(call.signal.aborted);
      // As the call's deadline, while the statement waits to be sent again.
      setImmediate(() => call.abort());
      throw call.signal.aborted ? new Refusal('DEADLINE', 'too late') : lost;
    });
    await assert.rejects(running, { reason: 'DEADLINE', outcome: 'unknown' });
    assert.deepEqual(tried, [false, true]);
  });
});

describe('a storm of failures', () => {
  it('is not answered by one of retries: a tenth of the statements, and a few each second', async () => {
    let time = 0;
    const retries = createRetries(withoutLog, () => time);
    const storm = async (many: number): Promise<number> => {
      const before = retries.counts.contention;
      const statements = Array.from({ length: many }, () => failing(...Array(9).fill(deadlock)));
      await Promise.allSettled(statements.map(({ attempt }) => retries.run(HARMLESS, attempt)));
      return retries.counts.contention - before;
    };
    assert.equal(await storm(2_000), 100, 'as many as may be saved up');
    for (let i = 0; i < 200; i++) await retries.run(HARMLESS, failing().attempt);
    assert.equal(await storm(100), 30, 'a tenth of those that were answered, and of its own');
    time += 1_000;
    assert.equal(await storm(100), 20, 'ten for the second');
    assert.ok(retries.counts.exhausted > 2_000);
  });
});
