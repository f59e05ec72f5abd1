import { create } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import type { PoolState } from '../db/pgbouncer.ts';
import { type Database, first } from '../db/pool.ts';
import {
  type DatabaseHealth,
  DatabaseHealthSchema,
  DatabaseStatus,
} from '../gen/jeex/persistence/v1/database_service_pb.js';
import { type Reason, Refusal } from '../refusal.ts';
import { duration, optionalTimestamp } from '../rpc/convert.ts';
import { bounded } from '../rpc/time.ts';
import { hitRatio } from './database.ts';
import type { ReadPools } from './pgbouncer-pools.ts';
import { type HealthRow, health } from './sql.ts';

/** How long the database has to answer before it counts as one that does not, in milliseconds. */
const TIMEOUT_MS = 2_000;
/** That there is no way to it right now is a finding, not a failure of who looks. */
const UNANSWERED: ReadonlySet<Reason> = new Set(['DATABASE_UNAVAILABLE', 'OVERLOADED']);

const MICROS_PER_MS = 1000;
const durationOf = (ms: number) => duration(BigInt(Math.round(ms * MICROS_PER_MS)));

const poolOf = (pool: ReturnType<Database['state']>) => ({
  acquired: BigInt(pool.acquired),
  idle: BigInt(pool.idle),
  limit: BigInt(pool.limit),
  waiting: BigInt(pool.waiting),
  acquisitions: BigInt(pool.acquisitions),
  acquisitionWait: durationOf(pool.acquisitionWaitMs),
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

const measured = (row: HealthRow, latencyMs: number) => ({
  status: DatabaseStatus.HEALTHY,
  latency: durationOf(latencyMs),
  postgresVersion: row.postgres_version,
  connections: {
    byState: Object.fromEntries(Object.entries(row.connections).map(([state, count]) => [state, BigInt(count)])),
    limit: BigInt(row.connection_limit),
  },
  cacheHitRatio: hitRatio(row.hits, row.reads) ?? undefined,
  databaseSizeBytes: row.size,
  walArchiving: {
    enabled: row.archiving,
    lastArchivedWal: row.last_archived_wal ?? '',
    lastArchivedTime: optionalTimestamp(row.last_archived_time),
    archivedCount: row.archived_count,
    failedCount: row.failed_count,
    lastFailedTime: optionalTimestamp(row.last_failed_time),
  },
  schemaVersion: row.schema_version,
});

/**
 * Measures the database's health by one statement, and asks PgBouncer beside it; a database that does not answer within 2 s is
 * UNAVAILABLE.
 * @throws ACTOR_UNKNOWN, and the signal's reason when the call ended first
 */
export const measureHealth = async (
  db: Database,
  readPools: ReadPools,
  actor: string | null,
  signal: AbortSignal,
): Promise<DatabaseHealth> => {
  const asked = readPools();
  const about = {
    checkTime: timestampNow(),
    servicePool: poolOf(db.state()),
  };
  const healthOf = async (found?: ReturnType<typeof measured> | { status: DatabaseStatus }) =>
    create(DatabaseHealthSchema, { ...about, ...found, pgbouncerPools: (await asked).map(pgbouncerPoolOf) });
  const began = performance.now();
  const patience = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  try {
    const row = first(await bounded(db.run(health, { actor }, patience), patience));
    return await healthOf(row && measured(row, performance.now() - began));
  } catch (error) {
    signal.throwIfAborted();
    if (patience.aborted || (error instanceof Refusal && UNANSWERED.has(error.reason))) {
      return await healthOf({ status: DatabaseStatus.UNAVAILABLE });
    }
    throw error;
  }
};
