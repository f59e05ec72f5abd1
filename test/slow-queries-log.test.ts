import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ROOT_CONTEXT, trace } from '@opentelemetry/api';
import { z } from 'zod';
import { placeOf, type SlowStatement } from '../src/db/observe.ts';
import { createDatabase } from '../src/db/pool.ts';
import { sql, statement } from '../src/db/statement.ts';
import { createLog } from '../src/log.ts';
import { createPlans, type Plans } from '../src/monitor/plans.ts';
import { createSlowLog } from '../src/monitor/slow-log.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';
import { useTestDatabase } from './support/postgres.ts';
import { until } from './support/until.ts';

/** From how many milliseconds on a statement is slow here. */
const SLOW_MS = 50;
const NAP = { seconds: (2 * SLOW_MS) / 1000 };

const nap = statement({
  name: 'test.nap',
  params: { seconds: 'float8' },
  row: z.object({}),
  sql: (p) => sql.fragment`select 1 as one from (select pg_sleep(${p.seconds})) as nap`,
});
const fail = statement({
  name: 'test.fail',
  params: { seconds: 'float8' },
  row: z.object({}),
  sql: (p) => sql.fragment`select 1 / length(pg_sleep(${p.seconds})::text) as failed`,
});
const quick = statement({
  name: 'test.quick',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`select 1 as one`,
});

const db = await useTestDatabase();

type Line = Readonly<Record<string, unknown>> & { readonly msg: string; readonly plan?: string };

/** A slow log, and what it has written. */
const slowLogWith = (plans: Plans) => {
  const lines: Line[] = [];
  const log = createLog('info', { write: (line) => void lines.push(JSON.parse(line)) });
  return { lines, slowLog: createSlowLog({ log, plans }) };
};

const useObserved = async () => {
  const plans = createPlans({ url: db.appUrl, log: createLog('silent') });
  const { lines, slowLog } = slowLogWith(plans);
  const measurements = createMeasurements();
  const observer = { measurements, place: placeOf(db.appUrl), slowMs: SLOW_MS, onSlow: slowLog.onSlow };
  const pool = await createDatabase({ url: db.appUrl, size: 1, observer });
  const end = async () => {
    await pool.end();
    await slowLog.end();
    await plans.end();
  };
  return { pool, lines, measurements, end };
};

describe('a slow statement', () => {
  it('is on the log once, with its waits, the call it serves, and every minute its plan', async () => {
    const { pool, lines, measurements, end } = await useObserved();
    const span = trace.wrapSpanContext({
      traceId: '0af7651916cd43dd8448eb211c80319c',
      spanId: 'b7ad6b7169203331',
      traceFlags: 1,
    });
    const asker = { correlationId: '0191d2a5-0000-7000-8000-000000000001', trace: { span, context: ROOT_CONTEXT } };
    await pool.run(quick, {}, asker);
    await Promise.all([pool.run(nap, NAP, asker), pool.run(nap, NAP)]);
    await end();
    assert.deepEqual(
      lines.map(({ level, msg, statement }) => [level, msg, statement]),
      [1, 2].map(() => ['warn', 'slow statement', 'test.nap']),
    );
    const told = lines.find(({ correlationId }) => correlationId !== undefined);
    const { traceId, spanId } = span.spanContext();
    assert.deepEqual(
      [told?.correlationId, told?.traceId, told?.spanId, told?.error],
      [asker.correlationId, traceId, spanId, undefined],
    );
    const waits = lines.map(({ queueMs }) => queueMs as number).toSorted((a, b) => a - b);
    assert.ok(lines.every(({ databaseMs }) => (databaseMs as number) >= 2 * SLOW_MS - 1));
    assert.ok((waits[1] as number) >= 2 * SLOW_MS - 1, 'the second waited for the first');
    const planned = lines.filter(({ plan }) => plan !== undefined);
    assert.equal(planned.length, 1);
    assert.match(planned[0]?.plan ?? '', /^Subquery Scan on nap .*\(cost=/);
    assert.equal(measurements.slow.count, 2);
  });

  it('that failed tells with what', async () => {
    const { pool, lines, end } = await useObserved();
    await assert.rejects(pool.run(fail, NAP));
    await end();
    assert.deepEqual(
      lines.map(({ statement, error }) => [statement, error]),
      [['test.fail', '22012']],
    );
  });
});

describe('the log of slow statements', () => {
  const slow = (name: string): SlowStatement => ({
    name,
    text: '',
    queueMs: 0,
    databaseMs: 1000,
    error: null,
    asker: {},
  });

  it('counts what a flood has too much, in the same second and when it ends', async () => {
    const { lines, slowLog } = slowLogWith({ of: async () => null, end: async () => {} });
    const flood = () => {
      for (let i = 0; i < 100; i += 1) slowLog.onSlow(slow('test.nap'));
    };
    const leftOut = () => lines.flatMap((line) => (line.leftOut === undefined ? [] : [line.leftOut]));
    flood();
    await until(() => leftOut().length > 0, 'what was left out is told');
    assert.deepEqual([lines.length, leftOut()], [11, [90]]);
    flood();
    await slowLog.end();
    assert.deepEqual([lines.length, leftOut()], [22, [90, 90]]);
  });

  it('waits for no plan that does not come', async () => {
    const { promise } = Promise.withResolvers<null>();
    const { lines, slowLog } = slowLogWith({ of: () => promise, end: async () => {} });
    slowLog.onSlow(slow('test.nap'));
    await slowLog.end();
    assert.deepEqual(
      lines.map(({ statement, plan }) => [statement, plan]),
      [['test.nap', undefined]],
    );
  });
});
