import type { PoolState as PgBouncerPool, PoolerStats } from '../db/pgbouncer.ts';
import type { PoolState as ServicePool } from '../db/pool.ts';

/** Rates, ratios and quantiles are of this long before the measurement, in seconds, or since the start. */
export const WINDOW_SECONDS = 300;

/** What is known of the database and the way to it. Null: not known, or not told to the monitor's role. */
export interface Figures {
  /** When it was measured, in milliseconds since the epoch. */
  readonly time: number;
  /** Whether calls can be served: the database answers them, and the schema fits. */
  readonly ready: boolean;
  /** What PostgreSQL told; null while it does not answer the monitor. */
  readonly server: ServerFigures | null;
  readonly pool: ServicePool;
  /** What a statement waited for a connection on average within the window, in seconds; null where none did. */
  readonly meanPoolWait: number | null;
  /** Of the attempts to make a connection within the window, the share that failed; null without any. */
  readonly connectFailureRatio: number | null;
  readonly pgbouncerPools: readonly PgBouncerPool[];
  readonly pgbouncerStats: readonly PoolerStats[];
  /** This service's statements over SLOW_QUERY_MS within the window, and sessions of anybody's that run as long now. */
  readonly slowQueries: number;
  readonly rpcs: readonly RpcFigures[];
  /** Of all unary calls within the window, in seconds; null without any. */
  readonly latency: Quantiles | null;
  readonly callsPerSecond: number;
  /** Calls that failed through no fault of the caller's. */
  readonly errorsPerSecond: number;
}

export interface ServerFigures {
  /** Of the monitor's own round trip, in seconds. */
  readonly latency: number;
  readonly postgresVersion: string;
  readonly schemaVersion: number;
  readonly connectionsByState: Readonly<Record<string, number>>;
  readonly connectionLimit: number;
  /** 0 to 1 within the window; null while too few blocks were read to say. */
  readonly cacheHitRatio: number | null;
  /** Within the window; null at the first measurement. */
  readonly transactionsPerSecond: number | null;
  readonly queriesPerSecond: number | null;
  readonly databaseSizeBytes: bigint;
  readonly locksWaiting: number;
  /** In seconds; 0 when none waits. */
  readonly longestLockWait: number;
  /** In seconds; 0 when none is open. */
  readonly oldestTransaction: number;
  readonly archiving: ArchivingFigures;
  readonly replicas: readonly ReplicaFigures[];
  readonly lastBackup: BackupFigures | null;
  readonly retention: RetentionFigures;
}

/** What the passes have removed of what is kept for a time only. */
interface RetentionFigures {
  /** When the last whole pass ended; null: none yet. */
  readonly endTime: bigint | null;
  /** So far. */
  readonly payloads: bigint;
  readonly exports: bigint;
  readonly changes: bigint;
}

export interface ArchivingFigures {
  readonly enabled: boolean;
  readonly lastArchivedWal: string | null;
  /** Microseconds since the epoch, as the other times. */
  readonly lastArchivedTime: bigint | null;
  readonly archivedCount: bigint;
  readonly failedCount: bigint;
  readonly lastFailedTime: bigint | null;
  /** How long it has failed without a success since, in seconds; 0 while it works. */
  readonly failingFor: number;
}

/** A standby that is connected, or a physical slot that waits for one. */
export interface ReplicaFigures {
  readonly name: string;
  /** As PostgreSQL names it; `disconnected` for a slot that nobody uses. */
  readonly state: string;
  readonly synchronous: boolean;
  /** How much of the log it has not replayed (of a slot: not confirmed), in bytes. */
  readonly lagBytes: bigint;
  /** In seconds; null when nothing was written lately. */
  readonly replayLag: number | null;
}

export interface BackupFigures {
  readonly kind: string;
  readonly startTime: bigint | null;
  readonly completeTime: bigint;
}

/** In seconds. */
export interface Quantiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

export interface RpcFigures {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly calls: number;
  readonly errors: number;
  /** Null for streams. */
  readonly latency: Quantiles | null;
}

export type Severity = 'warning' | 'critical';

/** An alert that is firing. */
export interface Firing {
  readonly name: string;
  readonly severity: Severity;
  /** The one that is crossed. */
  readonly threshold: number;
  readonly value: number;
  readonly unit: string;
  /** In milliseconds since the epoch. */
  readonly since: number;
  readonly description: string;
}

/** The figures and what they mean. */
export interface Report extends Figures {
  readonly alerts: readonly Firing[];
}

export type Status = 'HEALTHY' | 'DEGRADED' | 'UNAVAILABLE';

/** How the database is, in one word. */
export const statusOf = ({ ready, alerts }: Pick<Report, 'ready' | 'alerts'>): Status => {
  if (!ready) return 'UNAVAILABLE';
  return alerts.length > 0 ? 'DEGRADED' : 'HEALTHY';
};
