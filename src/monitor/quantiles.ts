import { type Counts, noCounts, quantile } from '../telemetry/histogram.ts';
import type { Measurements } from '../telemetry/measurements.ts';
import { isServerError } from '../telemetry/spans.ts';
import type { Quantiles, RpcFigures } from './report.ts';

/** What was counted of calls that ended alike, up to one moment. */
interface Counted {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly streaming: boolean;
  /** Through no fault of the caller's. */
  readonly failed: boolean;
  readonly count: number;
  readonly durations: Counts;
}

export type CallCounts = ReadonlyMap<string, Counted>;

/** The calls counted up to now, on their own: what is counted afterwards does not change it. */
export const countCalls = (calls: Measurements['calls']): CallCounts =>
  new Map(
    [...calls].map(([key, { method, streaming, code, durations }]) => [
      key,
      { method, streaming, failed: isServerError(code), count: durations.count, durations: durations.counts.slice() },
    ]),
  );

/** What was counted between two moments, where anything was. */
const between = (before: CallCounts, now: CallCounts): Counted[] =>
  [...now].flatMap(([key, counted]) => {
    const earlier = before.get(key);
    const count = counted.count - (earlier?.count ?? 0);
    if (count === 0) return [];
    return [
      { ...counted, count, durations: counted.durations.map((n, bucket) => n - (earlier?.durations[bucket] ?? 0)) },
    ];
  });

const countOf = (counted: readonly Counted[]): number => counted.reduce((sum, { count }) => sum + count, 0);
const failuresOf = (counted: readonly Counted[]): number => countOf(counted.filter(({ failed }) => failed));

/** Null of nothing. */
const quantilesOf = (counted: readonly Counted[]): Quantiles | null => {
  const sum = noCounts().map((_, bucket) => counted.reduce((n, { durations }) => n + (durations[bucket] ?? 0), 0));
  const [p50, p95, p99] = [quantile(sum, 0.5), quantile(sum, 0.95), quantile(sum, 0.99)];
  return p50 === null || p95 === null || p99 === null ? null : { p50, p95, p99 };
};

/** Of each RPC that was called between two moments, by name. */
export const rpcFigures = (before: CallCounts, now: CallCounts): RpcFigures[] => {
  const byMethod = Map.groupBy(between(before, now), ({ method }) => method);
  return [...byMethod]
    .map(([method, counted]) => ({
      method,
      calls: countOf(counted),
      errors: failuresOf(counted),
      latency: counted.some(({ streaming }) => streaming) ? null : quantilesOf(counted),
    }))
    .sort((one, other) => (one.method < other.method ? -1 : 1));
};

/** What became of all unary calls between two moments. */
export interface UnaryFigures {
  readonly latency: Quantiles | null;
  readonly callsPerSecond: number;
  readonly errorsPerSecond: number;
}

/** @param seconds between the moments; 0 where there were none */
export const unaryFigures = (before: CallCounts, now: CallCounts, seconds: number): UnaryFigures => {
  const unary = between(before, now).filter(({ streaming }) => !streaming);
  const each = (count: number) => (seconds > 0 ? count / seconds : 0);
  return {
    latency: quantilesOf(unary),
    callsPerSecond: each(countOf(unary)),
    errorsPerSecond: each(failuresOf(unary)),
  };
};
