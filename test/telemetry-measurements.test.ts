import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BOUNDARIES, exportedCounts, Histogram, quantile } from '../src/telemetry/histogram.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';

const histogramOf = (...seconds: number[]): Histogram => {
  const histogram = new Histogram();
  for (const each of seconds) histogram.record(each);
  return histogram;
};

describe('a histogram', () => {
  it('counts a duration in the exported bucket that ends with it, or begins below it', () => {
    for (const [i, bound] of BOUNDARIES.entries()) {
      for (const [seconds, bucket] of [
        [bound, i],
        [bound * 1.001, i + 1],
        [bound * 0.999, i],
      ] as const) {
        const counts = exportedCounts(histogramOf(seconds).counts);
        assert.deepEqual([counts.length, counts.indexOf(1)], [BOUNDARIES.length + 1, bucket], `${seconds} s`);
      }
    }
  });

  it('keeps the number, the sum and the extremes', () => {
    const { count, sum, min, max } = histogramOf(0.25, 0.5, 100);
    assert.deepEqual([count, sum, min, max], [3, 100.75, 0.25, 100]);
  });

  it('tells quantiles within a fifth', () => {
    const thousand = histogramOf(...Array.from({ length: 1000 }, (_, i) => (i + 1) / 1000));
    for (const share of [0.5, 0.95, 0.99]) {
      const found = quantile(thousand.counts, share) ?? Number.NaN;
      assert.ok(Math.abs(found - share) <= share / 5, `${share}: ${found}`);
    }
    assert.equal(quantile(histogramOf().counts, 0.5), null);
    assert.equal(quantile(histogramOf(1000).counts, 0.5), 60, 'beyond the last bound');
  });
});

describe('measurements', () => {
  it('keep a series for each door, method and code, and for each statement and error', () => {
    const measurements = createMeasurements();
    const method = { name: 'a.Service/Call', streaming: false };
    for (const system of ['grpc', 'grpc', 'connectrpc'] as const) measurements.call(system, method, 'OK', 0.001);
    measurements.call('grpc', method, 'NOT_FOUND', 0.001);
    measurements.statement('projects.get', null, 0.001);
    measurements.statement('projects.get', '57014', 0.001);
    assert.deepEqual(
      [...measurements.calls.values()].map(({ system, code, durations }) => [system, code, durations.count]),
      [
        ['grpc', 'OK', 2],
        ['connectrpc', 'OK', 1],
        ['grpc', 'NOT_FOUND', 1],
      ],
    );
    assert.deepEqual(
      [...measurements.statements.values()].map(({ name, error }) => [name, error]),
      [
        ['projects.get', null],
        ['projects.get', '57014'],
      ],
    );
  });
});
