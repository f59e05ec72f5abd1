import { type Gauge, SERVICE_POOL } from '../telemetry/gauge.ts';
import type { Measurements } from '../telemetry/measurements.ts';
import type { Report, ServerFigures } from './report.ts';

type Attributes = Readonly<Record<string, string>>;
type Point = readonly [value: number | bigint | null, attributes?: Attributes];
type Named = readonly [name: string, unit: string, description: string];

const metric = (kind: Gauge['kind'], [name, unit, description]: Named, points: readonly Point[]): Gauge => ({
  name,
  unit,
  description,
  kind,
  points: points.flatMap(([value, attributes = {}]) => (value === null ? [] : [{ value: Number(value), attributes }])),
});

/** What is not known has no point. */
const gauge = (name: string, unit: string, description: string, ...points: readonly Point[]): Gauge =>
  metric('gauge', [name, unit, description], points);

const counter = (name: string, unit: string, description: string, ...points: readonly Point[]): Gauge =>
  metric('counter', [name, unit, description], points);

/** What the conventions add up over the processes. */
const updowncounter = (name: string, unit: string, description: string, ...points: readonly Point[]): Gauge =>
  metric('updowncounter', [name, unit, description], points);

/** The service's only pool, as the conventions ask for a name. */
const POOL = { 'db.client.connection.pool.name': SERVICE_POOL };
const inState = (state: string): Attributes => ({ ...POOL, 'db.client.connection.state': state });

/** Everything that the monitor knows, as metrics. */
export const monitorGauges = (report: Report, measurements: Measurements): Gauge[] => [
  ...serviceGauges(report, measurements),
  ...(report.server ? serverGauges(report.server, report.time) : []),
  ...pgbouncerGauges(report),
];

const BREAKER_STATES: readonly Report['pool']['breaker'][] = ['closed', 'open', 'half_open'];

const serviceGauges = ({ pool, ready, server, ...report }: Report, { slow }: Measurements): Gauge[] => [
  updowncounter(
    'db.client.connection.count',
    '{connection}',
    "Connections of the service's pool by state.",
    [pool.idle, inState('idle')],
    [pool.acquired, inState('used')],
  ),
  updowncounter('db.client.connection.limit', '{connection}', 'Connections that the pool may have.', [
    pool.limit,
    POOL,
  ]),
  updowncounter('db.client.connection.pending_requests', '{request}', 'Statements that wait for a connection.', [
    pool.waiting,
    POOL,
  ]),
  counter('db.client.connection.timeouts', '{timeout}', 'Statements refused since their turn did not come in time.', [
    pool.acquisitionTimeouts,
    POOL,
  ]),
  counter(
    'jeex.db.retries',
    '{statement}',
    'Statements that were sent again, by what they had failed with; `exhausted`: that were not, since too many had been.',
    ...Object.entries(pool.retries).map(([reason, count]): Point => [count, { reason }]),
  ),
  gauge(
    'jeex.db.breaker',
    '1',
    'The state of the circuit breaker before new connections: 1 for the one it is in.',
    ...BREAKER_STATES.map((state): Point => [pool.breaker === state ? 1 : 0, { state }]),
  ),
  gauge('jeex.ready', '1', 'Whether the service serves calls: 1 or 0.', [ready ? 1 : 0]),
  gauge(
    'jeex.slow_queries',
    '{statement}',
    'Slow statements of the last five minutes, and sessions that run one now.',
    [report.slowQueries],
  ),
  counter('jeex.statements.slow', '{statement}', "The service's statements that were slow.", [slow.count]),
  gauge(
    'jeex.db.connect_failure_ratio',
    '1',
    'Of the attempts to connect in the last five minutes, those that failed.',
    [report.connectFailureRatio],
  ),
  gauge(
    'jeex.db.mean_pool_wait',
    's',
    'What statements waited for a connection in the last five minutes, on average.',
    [report.meanPoolWait],
  ),
  gauge('postgresql.up', '1', 'Whether PostgreSQL answers the monitor: 1 or 0.', [server ? 1 : 0]),
];

const serverGauges = (server: ServerFigures, time: number): Gauge[] => [
  gauge('jeex.schema.version', '1', 'The last migration applied.', [server.schemaVersion]),
  gauge('postgresql.round_trip', 's', "The monitor's own round trip.", [server.latency]),
  gauge(
    'postgresql.connection.count',
    '{connection}',
    'Connections of clients by state.',
    ...Object.entries(server.connectionsByState).map(([state, count]): Point => [count, { state }]),
  ),
  gauge('postgresql.connection.limit', '{connection}', 'Connections that the server allows.', [server.connectionLimit]),
  gauge('postgresql.cache.hit_ratio', '1', "Blocks of the last five minutes that were in PostgreSQL's cache.", [
    server.cacheHitRatio,
  ]),
  gauge('postgresql.transaction.rate', '{transaction}/s', 'Transactions over the last five minutes.', [
    server.transactionsPerSecond,
  ]),
  gauge('postgresql.query.rate', '{query}/s', 'Statements over the last five minutes.', [server.queriesPerSecond]),
  gauge('postgresql.database.size', 'By', 'What the database takes on the disk.', [server.databaseSizeBytes]),
  gauge('postgresql.lock.waiting', '{session}', 'Sessions that wait for a lock.', [server.locksWaiting]),
  gauge('postgresql.lock.longest_wait', 's', 'How long one of them has waited.', [server.longestLockWait]),
  gauge('postgresql.transaction.oldest_age', 's', 'How long a transaction has been open.', [server.oldestTransaction]),
  ...replicationGauges(server),
  ...archiveGauges(server, time),
  ...retentionGauges(server, time),
];

const replicationGauges = ({ replicas }: ServerFigures): Gauge[] => [
  gauge(
    'postgresql.replication.lag',
    'By',
    'What a replica has not replayed of the log, or a slot that waits for one not confirmed.',
    ...[...lagByName(replicas)].map(([replica, lag]): Point => [lag, { replica }]),
  ),
  gauge('postgresql.replication.replicas_missing', '{replica}', 'Slots that wait for a replica.', [
    replicas.filter(({ state }) => state === 'disconnected').length,
  ]),
];

/** Standbys may share a name, which no two series may: the one that is furthest behind counts. */
const lagByName = (replicas: ServerFigures['replicas']): ReadonlyMap<string, number> => {
  const lags = new Map<string, number>();
  for (const { name, lagBytes } of replicas) lags.set(name, Math.max(lags.get(name) ?? 0, Number(lagBytes)));
  return lags;
};

const MICROS_PER_MS = 1000;

/** In seconds; null: never. */
const ageOf = (micros: bigint | null, now: number): number | null =>
  micros === null ? null : Math.max(0, now - Number(micros) / MICROS_PER_MS) / 1000;

const archiveGauges = ({ archiving, lastBackup }: ServerFigures, time: number): Gauge[] => [
  counter('postgresql.wal.archived', '{file}', 'Files of the log that were archived.', [archiving.archivedCount]),
  counter('postgresql.wal.archive_failed', '{attempt}', 'Attempts to archive that failed.', [archiving.failedCount]),
  gauge('postgresql.wal.archive_failing_time', 's', 'How long archiving has failed without a success since.', [
    archiving.failingFor,
  ]),
  gauge('postgresql.wal.last_archived_age', 's', 'Since a file of the log was archived.', [
    ageOf(archiving.lastArchivedTime, time),
  ]),
  gauge('postgresql.backup.last_age', 's', 'Since a base backup ended.', [
    ageOf(lastBackup?.completeTime ?? null, time),
  ]),
];

const retentionGauges = ({ retention: { endTime, ...removed } }: ServerFigures, time: number): Gauge[] => [
  gauge('jeex.retention.last_age', 's', 'Since a pass of the retention ended.', [ageOf(endTime, time)]),
  counter(
    'jeex.retention.removed',
    '{row}',
    'Rows that the retention has removed.',
    ...Object.entries(removed).map(([kind, rows]): Point => [rows, { kind }]),
  ),
];

const pgbouncerGauges = ({ pgbouncerPools: pools, pgbouncerStats: stats }: Report): Gauge[] => [
  gauge(
    'pgbouncer.pool.clients',
    '{client}',
    'Clients of a PgBouncer pool by state.',
    ...pools.flatMap(({ database, user, clientsActive, clientsWaiting }): Point[] => [
      [clientsActive, { database, user, state: 'active' }],
      [clientsWaiting, { database, user, state: 'waiting' }],
    ]),
  ),
  gauge(
    'pgbouncer.pool.servers',
    '{connection}',
    "A PgBouncer pool's connections to PostgreSQL by state.",
    ...pools.flatMap(({ database, user, serversActive, serversIdle }): Point[] => [
      [serversActive, { database, user, state: 'active' }],
      [serversIdle, { database, user, state: 'idle' }],
    ]),
  ),
  gauge(
    'pgbouncer.pool.max_wait',
    's',
    'How long the oldest client of a PgBouncer pool waits.',
    ...pools.map(({ database, user, maxWaitMicros }): Point => [maxWaitMicros / 1_000_000, { database, user }]),
  ),
  perDatabase(
    'transaction_rate',
    '{transaction}/s',
    'Transactions through PgBouncer.',
    stats,
    (s) => s.transactionsPerSecond,
  ),
  perDatabase('query_rate', '{query}/s', 'Queries through PgBouncer.', stats, (s) => s.queriesPerSecond),
  perDatabase('query_time', 's', 'What a query through PgBouncer takes on average.', stats, (s) => s.queryTime),
  perDatabase(
    'wait_time',
    's',
    'What clients wait for a connection of PgBouncer in each second.',
    stats,
    (s) => s.waitTime,
  ),
];

type Stats = Report['pgbouncerStats'];

const perDatabase = (
  name: string,
  unit: string,
  description: string,
  stats: Stats,
  value: (each: Stats[number]) => number,
): Gauge =>
  gauge(
    `pgbouncer.stats.${name}`,
    unit,
    description,
    ...stats.map((each): Point => [value(each), { database: each.database }]),
  );
