import type { PoolState } from '../db/pool.ts';
import type { CallCounts } from './quantiles.ts';

/** What PostgreSQL has counted since it began to. */
export interface ServerCounters {
  /** When the server started, and when its statistics of the database began anew: what tells one count from another. */
  readonly since: string;
  readonly transactions: bigint;
  /** Blocks found in its cache, and blocks that were not. */
  readonly hits: bigint;
  readonly reads: bigint;
  /** Null: without pg_stat_statements. */
  readonly queries: bigint | null;
}

/** Every count at one moment. */
export interface Snapshot {
  /** Monotonic, in seconds. */
  readonly at: number;
  /** Null while PostgreSQL did not answer the monitor. */
  readonly server: ServerCounters | null;
  readonly pool: PoolCounters;
  readonly slow: number;
  readonly calls: CallCounts;
}

export type PoolCounters = Pick<PoolState, 'acquisitions' | 'acquisitionWaitMs' | 'connects' | 'failedConnects'>;

/** Below so many blocks a ratio says nothing: a quiet database that reads three blocks is no busy one that misses its cache. */
const MIN_BLOCKS = 1000;
/** Of a window, how many snapshots are kept: the rates of the last window are over one that is longer by this share at most. */
const SNAPSHOTS = 30;

/** Whether the counts go on from those of before. */
const goesOn = (before: ServerCounters, now: ServerCounters): boolean =>
  before.since === now.since &&
  before.transactions <= now.transactions &&
  before.hits <= now.hits &&
  before.reads <= now.reads;

/**
 * The snapshots that the rates of a window need, the oldest first, once another was taken: the first is the newest one that
 * is as old as the window, or else the oldest. One soon after another is left out, unless the server's counts begin with it.
 */
export const withSnapshot = (kept: readonly Snapshot[], next: Snapshot, windowSeconds: number): readonly Snapshot[] => {
  const last = kept.at(-1);
  const soon = last !== undefined && next.at - last.at < windowSeconds / SNAPSHOTS;
  if (soon && (next.server === null || (last.server !== null && goesOn(last.server, next.server)))) return kept;
  const start = kept.findLastIndex(({ at }) => next.at - at >= windowSeconds);
  return [...kept.slice(Math.max(0, start)), next];
};

interface ServerRates {
  readonly transactionsPerSecond: number | null;
  readonly queriesPerSecond: number | null;
  readonly cacheHitRatio: number | null;
}

const UNKNOWN: ServerRates = { transactionsPerSecond: null, queriesPerSecond: null, cacheHitRatio: null };

/** Of the time since the first snapshot whose counts go on to these; null is what nothing can be said of. */
export const serverRates = (kept: readonly Snapshot[], now: Pick<Snapshot, 'at' | 'server'>): ServerRates => {
  const { server } = now;
  const base = kept.find((snapshot) => server && snapshot.server && goesOn(snapshot.server, server));
  const seconds = base ? now.at - base.at : 0;
  if (!server || !base?.server || seconds <= 0) return UNKNOWN;
  const { transactions, hits, reads, queries } = base.server;
  return {
    transactionsPerSecond: Number(server.transactions - transactions) / seconds,
    queriesPerSecond: perSecond(queries, server.queries, seconds),
    cacheHitRatio: hitRatio(server.hits - hits, server.reads - reads),
  };
};

/** Statements that pg_stat_statements forgets take their count along, so that the sum of all may shrink. */
const perSecond = (before: bigint | null, now: bigint | null, seconds: number): number | null =>
  before === null || now === null || now < before ? null : Number(now - before) / seconds;

/** The share of blocks that PostgreSQL's own cache had, 0 to 1; null while too few were read to say. */
const hitRatio = (hits: bigint, reads: bigint): number | null =>
  hits + reads < MIN_BLOCKS ? null : Number(hits) / Number(hits + reads);

/** In seconds; null where nothing was given a connection. */
export const meanPoolWait = (before: PoolCounters, now: PoolCounters): number | null => {
  const acquisitions = now.acquisitions - before.acquisitions;
  return acquisitions === 0 ? null : (now.acquisitionWaitMs - before.acquisitionWaitMs) / 1000 / acquisitions;
};

/** The share of attempts to make a connection that failed; null without any. */
export const connectFailureRatio = (before: PoolCounters, now: PoolCounters): number | null => {
  const connects = now.connects - before.connects;
  return connects === 0 ? null : (now.failedConnects - before.failedConnects) / connects;
};
