import { type CallCounts, type UnaryFigures, unaryFigures } from './quantiles.ts';
import { type Report, type Status, statusOf } from './report.ts';

/** How long samples are kept, in seconds. */
const KEPT_SECONDS = 3600;
/** How many, at most. */
const MAX_SAMPLES = 720;

/** The figures of one moment that are worth a line over time; null: not known. */
export interface Sample extends UnaryFigures {
  /** In milliseconds since the epoch. */
  readonly time: number;
  readonly status: Status;
  /** Of the monitor's own round trip, in seconds. */
  readonly roundTrip: number | null;
  readonly connections: number | null;
  readonly connectionLimit: number | null;
  readonly poolAcquired: number;
  readonly poolWaiting: number;
  readonly poolLimit: number;
  readonly cacheHitRatio: number | null;
  readonly transactionsPerSecond: number | null;
  readonly queriesPerSecond: number | null;
  /** How many were firing. */
  readonly alerts: number;
}

/** The samples of the last hour, as far as they fit. */
export interface History {
  /** The oldest first. */
  readonly samples: readonly Sample[];
  /** @param calls counted up to the report, @param at monotonic, in seconds */
  add(report: Report, calls: CallCounts, at: number): void;
}

/** @param intervalSeconds between samples */
export const createHistory = (intervalSeconds: number): History => {
  const most = Math.min(MAX_SAMPLES, Math.ceil(KEPT_SECONDS / intervalSeconds));
  const samples: Sample[] = [];
  let before: { readonly calls: CallCounts; readonly at: number } | null = null;
  return {
    samples,
    add: (report, calls, at) => {
      const last = before ?? { calls, at };
      samples.push({ ...sampleOf(report), ...unaryFigures(last.calls, calls, at - last.at) });
      if (samples.length > most) samples.shift();
      before = { calls, at };
    },
  };
};

const sampleOf = (report: Report): Omit<Sample, keyof UnaryFigures> => {
  const { time, server, pool, alerts } = report;
  return {
    time,
    status: statusOf(report),
    roundTrip: server?.latency ?? null,
    connections: server && sum(Object.values(server.connectionsByState)),
    connectionLimit: server?.connectionLimit ?? null,
    poolAcquired: pool.acquired,
    poolWaiting: pool.waiting,
    poolLimit: pool.limit,
    cacheHitRatio: server?.cacheHitRatio ?? null,
    transactionsPerSecond: server?.transactionsPerSecond ?? null,
    queriesPerSecond: server?.queriesPerSecond ?? null,
    alerts: alerts.length,
  };
};

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
