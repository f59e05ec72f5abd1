import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { allOf, interleave, ratioOf } from './bench/support/compare.ts';
import { familyCpuOf } from './bench/support/cpu.ts';
import { merged, tolerance } from './bench/support/load.ts';
import type { Measured } from './bench/support/measure.ts';
import { toPlot } from './bench/support/plot.ts';
import { isGood, type Report, toMarkdown } from './bench/support/report.ts';
import type { Figure } from './bench/support/scenario.ts';
import { latencyOf } from './bench/support/statistics.ts';

const measuredOf = (target: string, callsPerSecond: number): Measured => ({
  target,
  work: 'GetVersion',
  driver: 'none',
  callers: 1,
  offered: null,
  calls: 1,
  failed: {},
  callsPerSecond,
  latency: { p50: 1, p95: 2, p99: 3 },
  cpu: { service: 1, pgbouncer: null, postgres: 2, all: 3 },
  walBytes: 0,
});

const rate = ({ callsPerSecond }: Measured): number => callsPerSecond;

const reportOf = (figures: readonly Figure[], failure?: string): Report => ({
  driver: 'none',
  time: '2026-11-23T00:00:00.000Z',
  stolen: 0,
  results: [
    { scenario: 'one', figures, measured: [measuredOf('service', 5)], ...(failure !== undefined && { failure }) },
  ],
});

const figureOf = (value: number, bound: Figure['bound']): Figure => ({
  name: 'a figure',
  value,
  spread: null,
  unit: 'ms',
  bound,
});

suite('What the benchmark makes of its measurements', () => {
  test('what is compared is measured forth and back, and paired by round', async () => {
    const order: string[] = [];
    const rates = { a: [2, 4, 10, 10], b: [1, 1, 5, 5] };
    const rounds = await interleave(['a', 'b'], 2, async (name) => {
      order.push(name);
      return measuredOf(name, rates[name as 'a'].shift() ?? 0);
    });
    assert.deepEqual(order, ['a', 'b', 'b', 'a', 'a', 'b', 'b', 'a']);
    assert.deepEqual(ratioOf(rounds, 'a', 'b', rate), { median: 2.5, least: 2, most: 3 });
    assert.equal(allOf(rounds).length, 8);
  });

  test('a figure beyond its bound is told, and one without a bound never is', () => {
    const met = [figureOf(10, { most: 10 }), figureOf(4, { least: 4 }), figureOf(9, null)];
    assert.equal(isGood(reportOf(met)), true);
    for (const figure of [figureOf(10.1, { most: 10 }), figureOf(3.9, { least: 4 })]) {
      assert.equal(isGood(reportOf([...met, figure])), false);
      assert.match(toMarkdown(reportOf([figure])), /\| one \| a figure \| .* \| NOT MET \|/);
    }
  });

  test('a figure that is no number, and a scenario that failed, are not good', () => {
    assert.equal(isGood(reportOf([figureOf(Number.NaN, { most: 1 })])), false);
    const failed = reportOf([], 'the machine is on fire');
    assert.equal(isGood(failed), false);
    assert.match(toMarkdown(failed), /\| one \| the machine is on fire \|.*\| FAILED \|/);
  });

  test('percentiles are of what was measured', () => {
    const times = Array.from({ length: 100 }, (_, i) => 100 - i);
    assert.deepEqual(latencyOf(times), { p50: 50, p95: 95, p99: 99 });
    assert.deepEqual(latencyOf([]), { p50: 0, p95: 0, p99: 0 });
  });

  test('drivers at work together count together', () => {
    const one = { answered: 2, failed: { refused: 1 }, seconds: 3, took: [1, 2] };
    const other = { answered: 1, failed: { refused: 2, broken: 1 }, seconds: 4, took: [5] };
    const both = { answered: 3, failed: { refused: 3, broken: 1 }, seconds: 4, took: [1, 2, 5] };
    assert.deepEqual(merged([one, other]), both);
  });

  test('an answer may differ by its numbers, not by what it holds', () => {
    assert.equal(tolerance(100), 16);
    assert.equal(tolerance(65_536) < 2_048, true);
  });

  test('what a process uses of the processors is seen', () => {
    const before = familyCpuOf(process.pid);
    for (const end = process.cpuUsage().user + 50_000; process.cpuUsage().user < end; );
    assert.ok(familyCpuOf(process.pid) > before);
  });

  test('the curve shows every point', () => {
    const points = [1, 2, 3].map((offered) => ({ offered, goodput: offered, p50: 1, p95: 10, p99: 100 }));
    const svg = toPlot(points);
    assert.equal(svg.match(/<polyline/g)?.length, 3);
    assert.equal(svg.match(/points="([^"]*)"/)?.[1]?.split(' ').length, 3);
  });
});
