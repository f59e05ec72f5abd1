import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ArchiverState, type Failing, failing, failingFor } from '../src/monitor/archiving.ts';
import { createHistory } from '../src/monitor/history.ts';
import { countCalls, rpcFigures, unaryFigures } from '../src/monitor/quantiles.ts';
import {
  connectFailureRatio,
  meanPoolWait,
  type PoolCounters,
  type ServerCounters,
  type Snapshot,
  serverRates,
  withSnapshot,
} from '../src/monitor/rates.ts';
import { type Firing, type Report, statusOf } from '../src/monitor/report.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';

const POOL = { acquisitions: 0, acquisitionWaitMs: 0, connects: 0, failedConnects: 0 };
const COUNTERS = { since: 'one start', transactions: 0n, hits: 0n, reads: 0n, queries: 0n };

const server = (counters: Partial<ServerCounters>): ServerCounters => ({ ...COUNTERS, ...counters });
const at = (seconds: number, counters: Partial<ServerCounters> | null): Snapshot => ({
  at: seconds,
  server: counters && server(counters),
  pool: POOL,
  slow: 0,
  calls: new Map(),
});

describe('the rates of the server', () => {
  const UNKNOWN = [null, null, null];
  const CASES: readonly (readonly [string, readonly Snapshot[], Snapshot, readonly (number | null)[]])[] = [
    ['are not known at the first look', [], at(0, {}), UNKNOWN],
    ['are not known while it does not answer', [at(0, {})], at(10, null), UNKNOWN],
    ['are of the time since a look before', [at(0, {})], at(10, { transactions: 50n, queries: 200n }), [5, 20, null]],
    [
      'are of the whole window',
      [at(0, { transactions: 100n }), at(100, { transactions: 900n })],
      at(200, { transactions: 1100n }),
      [5, 0, null],
    ],
    ['skip looks it did not answer', [at(0, null), at(10, {})], at(20, { transactions: 30n }), [3, 0, null]],
    ['begin anew when it was started again', [at(0, {})], at(10, { since: 'another', transactions: 90n }), UNKNOWN],
    [
      'begin anew with the first look after that',
      [at(0, { transactions: 7n }), at(10, { since: 'another' })],
      at(20, { since: 'another', transactions: 90n }),
      [9, 0, null],
    ],
    ['are never below nothing', [at(0, { transactions: 50n })], at(10, { transactions: 49n }), UNKNOWN],
    [
      'know no statements without their statistics',
      [at(0, { queries: null })],
      at(10, { queries: 5n }),
      [0, null, null],
    ],
    [
      'know none either once statistics were forgotten',
      [at(0, { queries: 9n })],
      at(10, { queries: 5n }),
      [0, null, null],
    ],
    [
      'tell the share of the cache',
      [at(0, { hits: 10n, reads: 90n })],
      at(10, { hits: 910n, reads: 190n }),
      [0, 0, 0.9],
    ],
    ['tell none of a few blocks', [at(0, {})], at(10, { hits: 0n, reads: 999n }), [0, 0, null]],
  ];
  for (const [what, kept, now, expected] of CASES) {
    it(what, () => {
      const { transactionsPerSecond, queriesPerSecond, cacheHitRatio } = serverRates(kept, now);
      assert.deepEqual([transactionsPerSecond, queriesPerSecond, cacheHitRatio], expected);
    });
  }
});

describe('the snapshots of a window', () => {
  /** When those were taken that are kept, after one each so many seconds. */
  const kept = (every: number, until: number): number[] => {
    let snapshots: readonly Snapshot[] = [];
    for (let now = 0; now <= until; now += every) snapshots = withSnapshot(snapshots, at(now, {}), 300);
    return snapshots.map((snapshot) => snapshot.at);
  };

  it('reach back to the window’s begin, and no further', () => {
    assert.deepEqual(
      [kept(100, 200), kept(100, 1000), kept(400, 1200)],
      [
        [0, 100, 200],
        [700, 800, 900, 1000],
        [800, 1200],
      ],
    );
  });

  it('are few, however often one is taken', () => {
    const seconds = kept(1, 1000);
    assert.equal(seconds.length, 31);
    assert.deepEqual([seconds[0], seconds.at(-1)], [700, 1000]);
  });

  it('take in at once what the server’s counts begin with', () => {
    const began = withSnapshot([at(0, null)], at(1, {}), 300);
    const again = withSnapshot(began, at(2, { since: 'another' }), 300);
    assert.deepEqual(
      again.map((snapshot) => snapshot.at),
      [0, 1, 2],
    );
    assert.equal(withSnapshot(again, at(3, { since: 'another' }), 300), again);
    assert.equal(withSnapshot(again, at(3, null), 300), again);
  });
});

describe('the figures of the pool', () => {
  const pool = (counters: Partial<PoolCounters>): PoolCounters => ({ ...POOL, ...counters });
  const before = pool({ acquisitions: 10, acquisitionWaitMs: 1000, connects: 4, failedConnects: 4 });

  it('are of what happened since, and not known of nothing', () => {
    assert.deepEqual([meanPoolWait(before, before), connectFailureRatio(before, before)], [null, null]);
    const now = pool({ acquisitions: 14, acquisitionWaitMs: 1200, connects: 12, failedConnects: 6 });
    assert.deepEqual([meanPoolWait(before, now), connectFailureRatio(before, now)], [0.05, 0.25]);
  });
});

describe('the figures of the RPCs', () => {
  const [UNARY, STREAM] = [
    { name: 'a.S/Get', streaming: false },
    { name: 'a.S/Watch', streaming: true },
  ];
  const measurements = createMeasurements();
  const called = (method: typeof UNARY, code: string, seconds: number, times = 1) => {
    for (let i = 0; i < times; i += 1) measurements.call('grpc', method, code, seconds);
  };
  const snapshot = () => countCalls(measurements.calls);

  it('are of what was called since, errors of the service’s making apart, streams without latencies', () => {
    called(UNARY, 'OK', 5);
    const before = snapshot();
    called(UNARY, 'OK', 0.001, 96);
    called(UNARY, 'NOT_FOUND', 0.001, 2);
    called(UNARY, 'UNAVAILABLE', 0.3, 2);
    measurements.call('connectrpc', UNARY, 'OK', 0.001);
    called(STREAM, 'OK', 3600);
    const [get, watch, ...none] = rpcFigures(before, snapshot());
    assert.deepEqual([none, get?.method, get?.calls, get?.errors], [[], 'a.S/Get', 101, 2]);
    assert.deepEqual(watch, { method: 'a.S/Watch', calls: 1, errors: 0, latency: null });
    const { p50 = 9, p95 = 9, p99 = 0 } = get?.latency ?? {};
    assert.ok(p50 <= 0.001 && p95 <= 0.001 && p99 > 0.25 && p99 <= 0.3, `${p50} ${p95} ${p99}`);
    const all = unaryFigures(before, snapshot(), 10);
    assert.deepEqual([all.callsPerSecond, all.errorsPerSecond, all.latency], [10.1, 0.2, get?.latency]);
  });

  it('are nothing where nothing was called', () => {
    const now = snapshot();
    assert.deepEqual(rpcFigures(now, now), []);
    assert.deepEqual(unaryFigures(now, now, 10), { latency: null, callsPerSecond: 0, errorsPerSecond: 0 });
    assert.equal(unaryFigures(new Map(), now, 0).callsPerSecond, 0);
  });

  it('are of their own moment, whatever is counted later', () => {
    const before = snapshot();
    called(UNARY, 'OK', 0.001);
    assert.equal(rpcFigures(before, snapshot())[0]?.calls, 1);
  });
});

describe('archiving', () => {
  const WORKS: ArchiverState = {
    enabled: true,
    lastArchivedWal: '1',
    lastArchivedTime: 100n,
    archivedCount: 1n,
    failedCount: 0n,
    lastFailedTime: null,
  };
  const fails = (lastFailedTime: bigint): ArchiverState => ({ ...WORKS, failedCount: 1n, lastFailedTime });
  const since = (found: Failing | null) => found?.since ?? null;

  it('fails from the first failure that was seen, until a success', () => {
    assert.equal(failing(null, WORKS), null);
    const first = failing(null, fails(5_000_000n));
    const later = failing(first, fails(65_000_000n));
    assert.deepEqual([since(first), since(later)], [5_000_000n, 5_000_000n]);
    assert.deepEqual([failingFor(later, 66_000_000n), failingFor(null, 66_000_000n)], [61, 0]);
    assert.equal(failing(later, { ...fails(65_000_000n), lastArchivedTime: 66_000_000n, archivedCount: 2n }), null);
  });

  it('that worked and failed between two looks fails from the later failure', () => {
    const first = failing(null, fails(5_000_000n));
    const again = { ...fails(90_000_000n), lastArchivedTime: 80_000_000n, archivedCount: 2n };
    assert.equal(since(failing(first, again)), 90_000_000n);
  });

  it('that is off does not fail', () => {
    assert.equal(failing(null, { ...fails(5n), enabled: false }), null);
  });
});

describe('the history', () => {
  const report = { server: null, alerts: [], pool: {}, ready: true } as unknown as Report;
  const timesOf = (intervalSeconds: number, many: number): number[] => {
    const history = createHistory(intervalSeconds);
    for (let i = 0; i < many; i += 1) history.add({ ...report, time: i }, new Map(), i);
    return history.samples.map(({ time }) => time);
  };

  it('is an hour long, and bounded', () => {
    assert.deepEqual([timesOf(30, 500).length, timesOf(30, 500)[0]], [120, 380]);
    assert.equal(timesOf(1, 5000).length, 720);
    assert.deepEqual(timesOf(3600, 3), [2]);
  });

  it('tells what was called since the sample before', () => {
    const measurements = createMeasurements();
    const history = createHistory(30);
    const add = (seconds: number) => history.add(report, countCalls(measurements.calls), seconds);
    const call = () => measurements.call('grpc', { name: 'a', streaming: false }, 'INTERNAL', 0.01);
    call();
    add(0);
    for (let i = 0; i < 5; i += 1) call();
    add(10);
    add(20);
    const rates = history.samples.map(({ callsPerSecond, errorsPerSecond }) => [callsPerSecond, errorsPerSecond]);
    assert.deepEqual(rates, [
      [0, 0],
      [0.5, 0.5],
      [0, 0],
    ]);
  });
});

it('the status is of readiness first, then of alerts', () => {
  const alerts = [{ name: 'x' } as Firing];
  const CASES = [
    [true, [], 'HEALTHY'],
    [true, alerts, 'DEGRADED'],
    [false, [], 'UNAVAILABLE'],
    [false, alerts, 'UNAVAILABLE'],
  ] as const;
  for (const [ready, firing, status] of CASES) assert.equal(statusOf({ ready, alerts: firing }), status);
});
