import { create } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import { type Database, first } from '../db/pool.ts';
import {
  type DatabaseHealth,
  DatabaseHealthSchema,
  DatabaseStatus,
} from '../gen/jeex/persistence/v1/database_service_pb.js';
import { Refusal } from '../refusal.ts';
import { duration, optionalTimestamp } from '../rpc/convert.ts';
import { bounded } from '../rpc/time.ts';
import { hitRatio } from './database.ts';
import { type HealthRow, health } from './sql.ts';

/** How long the database has to answer before it counts as one that does not, in milliseconds. */
const TIMEOUT_MS = 2_000;

const measured = (row: HealthRow, latencyMs: number) => ({
  status: DatabaseStatus.HEALTHY,
  latency: duration(BigInt(Math.round(latencyMs * 1000))),
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
 * Measures the database's health by one statement; a database that does not answer within 2 s is UNAVAILABLE.
 * @param poolSize connections of the pool, at most
 * @throws ACTOR_UNKNOWN, and the signal's reason when the call ended first
 */
export const measureHealth = async (
  db: Database,
  poolSize: number,
  actor: string | null,
  signal: AbortSignal,
): Promise<DatabaseHealth> => {
  const pool = db.state();
  const about = {
    checkTime: timestampNow(),
    servicePool: {
      acquired: BigInt(pool.acquired),
      idle: BigInt(pool.idle),
      limit: BigInt(poolSize),
      waiting: BigInt(pool.waiting),
    },
  };
  const began = performance.now();
  const patience = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  try {
    const row = first(await bounded(db.run(health, { actor }, patience), patience));
    return create(DatabaseHealthSchema, { ...about, ...(row && measured(row, performance.now() - began)) });
  } catch (error) {
    signal.throwIfAborted();
    if (patience.aborted || (error instanceof Refusal && error.reason === 'DATABASE_UNAVAILABLE')) {
      return create(DatabaseHealthSchema, { ...about, status: DatabaseStatus.UNAVAILABLE });
    }
    throw error;
  }
};
