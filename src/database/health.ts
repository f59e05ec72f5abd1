import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { PoolerStats, PoolState } from '../db/pgbouncer.ts';
import {
  AlertSeverity,
  type DatabaseHealth,
  DatabaseHealthSchema,
  DatabaseStatus,
  type HealthSampleSchema,
} from '../gen/jeex/persistence/v1/database_service_pb.js';
import type { Sample } from '../monitor/history.ts';
import {
  type BackupFigures,
  type Firing,
  type Quantiles,
  type ReplicaFigures,
  type Report,
  type RpcFigures,
  type ServerFigures,
  statusOf,
} from '../monitor/report.ts';
import { duration, optionalTimestamp, timestamp } from '../rpc/convert.ts';

const MICROS_PER_MS = 1000n;
const MICROS_PER_SECOND = 1_000_000;

const seconds = (length: number) => duration(BigInt(Math.round(length * MICROS_PER_SECOND)));
const optionalSeconds = (length: number | null) => (length === null ? undefined : seconds(length));
const time = (ms: number) => timestamp(BigInt(Math.round(ms)) * MICROS_PER_MS);
const optionalCount = (count: number | null) => (count === null ? undefined : BigInt(count));

/** All that is known, as the contract has it. */
export const healthOf = (report: Report): DatabaseHealth =>
  create(DatabaseHealthSchema, {
    status: DatabaseStatus[statusOf(report)],
    checkTime: time(report.time),
    ...(report.server && serverOf(report.server)),
    servicePool: servicePoolOf(report.pool),
    pgbouncerPools: report.pgbouncerPools.map(pgbouncerPoolOf),
    pgbouncerStats: report.pgbouncerStats.map(pgbouncerStatsOf),
    slowQueryCount: BigInt(report.slowQueries),
    rpcs: report.rpcs.map(rpcOf),
    alerts: report.alerts.map(alertOf),
  });

const serverOf = (server: ServerFigures) => ({
  latency: seconds(server.latency),
  postgresVersion: server.postgresVersion,
  schemaVersion: server.schemaVersion,
  connections: {
    byState: Object.fromEntries(
      Object.entries(server.connectionsByState).map(([state, count]) => [state, BigInt(count)]),
    ),
    limit: BigInt(server.connectionLimit),
  },
  cacheHitRatio: server.cacheHitRatio ?? undefined,
  transactionsPerSecond: server.transactionsPerSecond ?? undefined,
  queriesPerSecond: server.queriesPerSecond ?? undefined,
  databaseSizeBytes: server.databaseSizeBytes,
  locksWaiting: BigInt(server.locksWaiting),
  longestLockWait: seconds(server.longestLockWait),
  oldestTransaction: seconds(server.oldestTransaction),
  walArchiving: archivingOf(server.archiving),
  replicas: server.replicas.map(replicaOf),
  lastBackup: server.lastBackup === null ? undefined : backupOf(server.lastBackup),
});

const archivingOf = (archiving: ServerFigures['archiving']) => ({
  enabled: archiving.enabled,
  lastArchivedWal: archiving.lastArchivedWal ?? '',
  lastArchivedTime: optionalTimestamp(archiving.lastArchivedTime),
  archivedCount: archiving.archivedCount,
  failedCount: archiving.failedCount,
  lastFailedTime: optionalTimestamp(archiving.lastFailedTime),
});

const replicaOf = ({ name, state, synchronous, lagBytes, replayLag }: ReplicaFigures) => ({
  name,
  state,
  synchronous,
  lagBytes,
  replayLag: optionalSeconds(replayLag),
});

/** One that had failed would have left no record. */
const backupOf = ({ kind, startTime, completeTime }: BackupFigures) => ({
  kind,
  startTime: optionalTimestamp(startTime),
  completeTime: timestamp(completeTime),
  succeeded: true,
});

const servicePoolOf = (pool: Report['pool']) => ({
  acquired: BigInt(pool.acquired),
  idle: BigInt(pool.idle),
  limit: BigInt(pool.limit),
  waiting: BigInt(pool.waiting),
  acquisitions: BigInt(pool.acquisitions),
  acquisitionWait: seconds(pool.acquisitionWaitMs / 1000),
  acquisitionTimeouts: BigInt(pool.acquisitionTimeouts),
  connects: BigInt(pool.connects),
  failedConnects: BigInt(pool.failedConnects),
});

const pgbouncerPoolOf = (pool: PoolState) => ({
  database: pool.database,
  user: pool.user,
  poolMode: pool.poolMode,
  clientsActive: BigInt(pool.clientsActive),
  clientsWaiting: BigInt(pool.clientsWaiting),
  serversActive: BigInt(pool.serversActive),
  serversIdle: BigInt(pool.serversIdle),
  maxWait: duration(BigInt(pool.maxWaitMicros)),
});

const pgbouncerStatsOf = ({ queryTime, waitTime, ...stats }: PoolerStats) => ({
  ...stats,
  queryTime: seconds(queryTime),
  waitTime: seconds(waitTime),
});

const quantilesOf = (latency: Quantiles | null) =>
  latency && { p50: seconds(latency.p50), p95: seconds(latency.p95), p99: seconds(latency.p99) };

const rpcOf = ({ method, calls, errors, latency }: RpcFigures) => ({
  method,
  calls: BigInt(calls),
  errors: BigInt(errors),
  ...quantilesOf(latency),
});

const SEVERITY = { warning: AlertSeverity.WARNING, critical: AlertSeverity.CRITICAL } as const;

const alertOf = ({ name, severity, threshold, value, unit, since, description }: Firing) => ({
  name,
  severity: SEVERITY[severity],
  threshold,
  value,
  unit,
  fireTime: time(since),
  description,
});

/** One moment of the last hour, as the contract has it. */
export const sampleOf = (sample: Sample): MessageInitShape<typeof HealthSampleSchema> => ({
  time: time(sample.time),
  status: DatabaseStatus[sample.status],
  latency: optionalSeconds(sample.roundTrip),
  connections: optionalCount(sample.connections),
  connectionLimit: optionalCount(sample.connectionLimit),
  poolAcquired: BigInt(sample.poolAcquired),
  poolWaiting: BigInt(sample.poolWaiting),
  poolLimit: BigInt(sample.poolLimit),
  cacheHitRatio: sample.cacheHitRatio ?? undefined,
  transactionsPerSecond: sample.transactionsPerSecond ?? undefined,
  queriesPerSecond: sample.queriesPerSecond ?? undefined,
  callsPerSecond: sample.callsPerSecond,
  errorsPerSecond: sample.errorsPerSecond,
  ...quantilesOf(sample.latency),
  alerts: sample.alerts,
});
