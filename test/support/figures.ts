import type { Figures, ServerFigures } from '../../src/monitor/report.ts';

/** What a server tells that has nothing wrong with it. */
export const SERVER: ServerFigures = {
  latency: 0.001,
  postgresVersion: '18.0',
  schemaVersion: 1,
  connectionsByState: { active: 1, idle: 9 },
  connectionLimit: 100,
  cacheHitRatio: 0.99,
  transactionsPerSecond: 1,
  queriesPerSecond: 1,
  databaseSizeBytes: 1n,
  locksWaiting: 0,
  longestLockWait: 0,
  oldestTransaction: 0,
  archiving: {
    enabled: true,
    lastArchivedWal: null,
    lastArchivedTime: null,
    archivedCount: 0n,
    failedCount: 0n,
    lastFailedTime: null,
    failingFor: 0,
  },
  replicas: [],
  lastBackup: null,
  retention: { endTime: null, payloads: 0n, exports: 0n, changes: 0n },
};

/** A pool that nobody has used. */
export const POOL: Figures['pool'] = {
  acquired: 0,
  idle: 0,
  limit: 10,
  waiting: 0,
  acquisitions: 0,
  acquisitionWaitMs: 0,
  acquisitionTimeouts: 0,
  connects: 0,
  failedConnects: 0,
  retries: { contention: 0, connection: 0, exhausted: 0 },
  breaker: 'closed',
};

/** What is known of such a server while nobody calls. */
export const FIGURES: Figures = {
  time: 0,
  ready: true,
  server: SERVER,
  pool: POOL,
  meanPoolWait: null,
  connectFailureRatio: null,
  pgbouncerPools: [],
  pgbouncerStats: [],
  slowQueries: 0,
  rpcs: [],
  latency: null,
  callsPerSecond: 0,
  errorsPerSecond: 0,
};
