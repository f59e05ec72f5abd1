import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { attemptOf, durationOf, leaseSeconds, timesFault } from '../src/executions/executions.ts';

type Row = readonly [
  status: string,
  start: string | null,
  complete: string | null,
  lease: number,
  field: string | null,
];

const T1 = '2026-01-01T00:00:00.000001Z';
const T2 = '2026-01-01T00:00:00.000002Z';

describe('the times of a recorded run', () => {
  const table: readonly Row[] = [
    ['PENDING', null, null, 0, null],
    ['PENDING', T1, null, 0, 'start_time'],
    ['PENDING', null, T1, 0, 'complete_time'],
    ['RUNNING', null, null, 30, null],
    ['RUNNING', T1, null, 30, null],
    ['RUNNING', null, null, 0, 'lease_seconds'],
    ['RUNNING', T1, T2, 30, 'complete_time'],
    ['CANCELLED', null, T1, 0, null],
    ['CANCELLED', T1, T2, 0, null],
    ['CANCELLED', T1, null, 0, 'complete_time'],
    ...['COMPLETED', 'FAILED', 'TIMED_OUT'].flatMap((status): Row[] => [
      [status, T1, T2, 0, null],
      [status, T1, T1, 0, null],
      [status, T2, T1, 0, 'complete_time'],
      [status, null, T1, 0, 'start_time'],
      [status, T1, null, 0, 'complete_time'],
      [status, null, null, 0, 'complete_time'],
    ]),
  ];

  for (const [status, start, complete, seconds, field] of table) {
    it(`${status} from ${start} to ${complete} with a lease of ${seconds} s: ${field ?? 'fine'}`, () => {
      assert.equal(timesFault({ status, start, complete, leaseSeconds: seconds })?.field ?? null, field);
    });
  }
});

describe('what a caller does not say', () => {
  it('is a lease of 300 s and a first attempt', () => {
    assert.deepEqual([leaseSeconds(0), leaseSeconds(5), attemptOf(0), attemptOf(3)], [300, 5, 1, 3]);
  });

  it('a run took the time from start to completion, and none without either', () => {
    assert.equal(durationOf(1n, 3n), 2n);
    assert.equal(durationOf(null, 3n), null);
    assert.equal(durationOf(1n, null), null);
  });
});
