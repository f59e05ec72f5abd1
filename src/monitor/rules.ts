import type { AlertRule } from './alerts.ts';
import type { Figures, ServerFigures } from './report.ts';

const MEGABYTE = 1_000_000;

/** A value that PostgreSQL told: not known while it does not answer. */
const told =
  (read: (server: ServerFigures) => number | null) =>
  ({ server }: Figures): number | null =>
    server && read(server);

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
const most = (numbers: readonly number[]): number => Math.max(0, ...numbers);

/** What every replica of the service measures alike is one value, whoever told it. */
const shared = (metric: string, by = 'job'): string => `max by (${by}) (${metric})`;
/** What is each process's own. */
const own = (metric: string): string => shared(metric, 'job, instance');

/** Streams last as long as they are wanted; what they are called says which they are. */
export const STREAMS = '.*/(Watch|Stream).*';

/**
 * Every alert, with its thresholds unless ALERTS says otherwise. Those that requirements name: connections over 80 %, cache
 * hits under 90 %, p95 over 500 ms, more than 10 slow queries, replica lag over 100 MB (REQ-005), connection attempts that
 * fail 5 % and acquisitions of 10 ms on average (PERF-002).
 */
export const RULES: readonly AlertRule[] = [
  {
    name: 'database_down',
    summary: 'The database cannot serve calls',
    description:
      'Calls fail: the database does not answer, or its schema does not fit this release. See the reason in the log line ' +
      '"not ready", and whether PostgreSQL and PgBouncer run.',
    unit: 'count',
    fires: 'above',
    thresholds: { critical: 0 },
    forSeconds: 0,
    value: ({ ready }) => (ready ? 0 : 1),
    promql: '1 - min by (job, instance) (jeex_ready)',
  },
  {
    name: 'connections',
    summary: 'PostgreSQL runs out of connections',
    description:
      'Of the connections that the server allows, most are taken; at the limit it refuses new ones. See in ' +
      "pg_stat_activity whose they are, and compare max_db_connections of PgBouncer with the server's limit.",
    unit: 'ratio',
    fires: 'above',
    thresholds: { warning: 0.8, critical: 0.95 },
    forSeconds: 60,
    value: told(({ connectionsByState, connectionLimit }) => sum(Object.values(connectionsByState)) / connectionLimit),
    promql: shared(
      'sum by (job, instance) (postgresql_connection_count) / sum by (job, instance) (postgresql_connection_limit)',
    ),
  },
  {
    name: 'cache_hit_ratio',
    summary: 'PostgreSQL reads much from the disk',
    description:
      'Blocks are not found in shared_buffers. See in ListSlowQueries whether a statement reads whole tables; if none ' +
      'does, the data has outgrown the memory: raise shared_buffers.',
    unit: 'ratio',
    fires: 'below',
    thresholds: { warning: 0.9, critical: 0.8 },
    forSeconds: 300,
    value: told(({ cacheHitRatio }) => cacheHitRatio),
    promql: 'min by (job) (postgresql_cache_hit_ratio)',
  },
  {
    name: 'latency_p95',
    summary: 'Calls are slow',
    description:
      'One of twenty unary calls takes longer than this. See in the status page which RPCs, and in their server-timing ' +
      'whether they wait for a connection or for the database.',
    unit: 'seconds',
    fires: 'above',
    thresholds: { warning: 0.5, critical: 1 },
    forSeconds: 60,
    value: ({ latency }) => latency?.p95 ?? 0,
    promql:
      'histogram_quantile(0.95, sum by (job, instance, le) ' +
      `(rate(rpc_server_call_duration_bucket{rpc_method!~"${STREAMS}"}[5m])))`,
  },
  {
    name: 'slow_queries',
    summary: 'Statements are slow',
    description:
      'So many statements took longer than SLOW_QUERY_MS in the last five minutes, or still run. See the log lines of ' +
      'slow statements, and ListSlowQueries, for the statement and its plan.',
    unit: 'count',
    fires: 'above',
    thresholds: { warning: 10, critical: 50 },
    forSeconds: 0,
    value: ({ slowQueries }) => slowQueries,
    promql: own('jeex_slow_queries'),
  },
  {
    name: 'replica_lag',
    summary: 'A replica is behind',
    description:
      'A standby, or a slot that waits for one, lacks so much of the log: a failover would lose it, and PostgreSQL keeps it ' +
      "on its disk. See pg_stat_replication, the standby's log, and the network between them.",
    unit: 'bytes',
    fires: 'above',
    thresholds: { warning: 100 * MEGABYTE, critical: 1000 * MEGABYTE },
    forSeconds: 60,
    value: told(({ replicas }) => most(replicas.map(({ lagBytes }) => Number(lagBytes)))),
    promql: shared('postgresql_replication_lag', 'job, replica'),
  },
  {
    name: 'replica_missing',
    summary: 'A replica is not connected',
    description:
      'A replication slot waits for a standby, and the log that it has not seen stays on the disk. Start the standby; if ' +
      'it is gone for good, drop its slot with pg_drop_replication_slot.',
    unit: 'count',
    fires: 'above',
    thresholds: { warning: 0 },
    forSeconds: 60,
    value: told(({ replicas }) => replicas.filter(({ state }) => state === 'disconnected').length),
    promql: shared('postgresql_replication_replicas_missing'),
  },
  {
    name: 'lock_wait',
    summary: 'A session waits long for a lock',
    description:
      'Somebody holds what others need. See with pg_blocking_pids who, and whether it may be ended with ' +
      'pg_terminate_backend.',
    unit: 'seconds',
    fires: 'above',
    thresholds: { warning: 10, critical: 60 },
    forSeconds: 0,
    value: told(({ longestLockWait }) => longestLockWait),
    promql: shared('postgresql_lock_longest_wait'),
  },
  {
    name: 'oldest_transaction',
    summary: 'A transaction stays open',
    description:
      'It holds its locks, and keeps dead rows from being removed. See in pg_stat_activity, by xact_start, whose it is.',
    unit: 'seconds',
    fires: 'above',
    thresholds: { warning: 300, critical: 3600 },
    forSeconds: 0,
    value: told(({ oldestTransaction }) => oldestTransaction),
    promql: shared('postgresql_transaction_oldest_age'),
  },
  {
    name: 'archiving_failed',
    summary: 'The log is not archived',
    description:
      'The archive lacks what was written since, so recovery ends before it, and the log fills the disk. See ' +
      "PostgreSQL's log for what archive_command said, and `jeex-persistence doctor`.",
    unit: 'seconds',
    fires: 'above',
    thresholds: { warning: 60, critical: 600 },
    forSeconds: 0,
    value: told(({ archiving }) => archiving.failingFor),
    promql: shared('postgresql_wal_archive_failing_time'),
  },
  {
    name: 'pool_wait',
    summary: 'Statements wait for a connection',
    description:
      "The service's pool is too small for its calls, or they keep connections long. See lock_wait and slow_queries " +
      'first; then raise POOL_SIZE, as far as the pools behind it go.',
    unit: 'seconds',
    fires: 'above',
    thresholds: { warning: 0.01, critical: 0.1 },
    forSeconds: 60,
    // While all wait and none has had its turn, nobody can say how long it takes.
    value: ({ meanPoolWait, pool }) => meanPoolWait ?? (pool.waiting > 0 ? null : 0),
    promql: own('jeex_db_mean_pool_wait'),
  },
  {
    name: 'connect_failures',
    summary: 'Connections to the database fail',
    description:
      'Of the attempts to connect, this share failed. See the log for what the database said: the address, the ' +
      'certificate, the password, or no room at PgBouncer or PostgreSQL.',
    unit: 'ratio',
    fires: 'above',
    thresholds: { warning: 0.05, critical: 0.5 },
    forSeconds: 60,
    value: ({ connectFailureRatio }) => connectFailureRatio ?? 0,
    promql: own('jeex_db_connect_failure_ratio'),
  },
];
