import { z } from 'zod';
import { LAST_BASE_BACKUP, MAY_SEE_BASE_BACKUP } from '../db/base-backup.ts';
import type { ArchiverState } from './archiving.ts';
import type { ServerCounters } from './rates.ts';
import type { BackupFigures, ReplicaFigures, ServerFigures } from './report.ts';
import type { MonitorSession } from './session.ts';

/** What PostgreSQL says of itself at one moment; what takes two moments is left to who looks. */
export interface Look {
  readonly server: Omit<ServerFigures, 'cacheHitRatio' | 'transactionsPerSecond' | 'queriesPerSecond' | 'archiving'>;
  readonly archiver: ArchiverState;
  readonly counters: ServerCounters;
  /** Sessions whose statement has run longer than a slow one. */
  readonly slowSessions: number;
  /** Of the server's clock, in microseconds since the epoch. */
  readonly now: bigint;
}

const replica = z.object({
  name: z.string(),
  state: z.string(),
  synchronous: z.boolean(),
  lag: z.int(),
  replay_lag: z.number().nullable(),
});

const lookRow = z.object({
  now: z.bigint(),
  version: z.string(),
  schema_version: z.int(),
  size: z.bigint(),
  connections: z.record(z.string(), z.int()),
  connection_limit: z.int(),
  locks_waiting: z.int(),
  longest_lock_wait: z.number(),
  oldest_transaction: z.number(),
  slow_sessions: z.int(),
  replicas: z.array(replica),
  archiving: z.boolean(),
  last_archived_wal: z.string().nullable(),
  last_archived_time: z.bigint().nullable(),
  archived_count: z.bigint(),
  failed_count: z.bigint(),
  last_failed_time: z.bigint().nullable(),
  since: z.string(),
  transactions: z.bigint(),
  hits: z.bigint(),
  reads: z.bigint(),
  has_statements: z.boolean(),
  may_see_backup: z.boolean(),
  has_retention: z.boolean(),
});
type LookRow = z.infer<typeof lookRow>;

/**
 * Other roles' sessions tell who is no member of pg_monitor nothing of themselves, not even what kind they are: those of a
 * database count as connections, in a state that is `unknown`. Locks, transactions and slow statements are this database's.
 */
const LOOK = `
with sessions as materialized (
  select a.pid, a.state, a.xact_start, a.query_start, a.datname = current_database() as here
  from pg_stat_activity a
  where a.backend_type = 'client backend' or (a.backend_type is null and a.datid is not null)
), others as (
  select * from sessions s where s.here and s.pid <> pg_backend_pid()
), waits as (
  select l.waitstart from pg_locks l join others o on o.pid = l.pid where not l.granted
), log as (
  select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end as written
), replicas as (
  select coalesce(r.application_name, 'unknown') as name, coalesce(r.state, 'unknown') as state,
    coalesce(r.sync_state in ('sync', 'quorum'), false) as synchronous,
    pg_wal_lsn_diff(log.written, coalesce(r.replay_lsn, r.flush_lsn, r.sent_lsn)) as lag,
    extract(epoch from r.replay_lag) as replay_lag
  from pg_stat_replication r, log where r.state is distinct from 'backup'
  union all
  select s.slot_name, 'disconnected', false, pg_wal_lsn_diff(log.written, s.restart_lsn), null
  from pg_replication_slots s, log where s.slot_type = 'physical' and not s.active
)
select clock_timestamp() as now, current_setting('server_version') as version,
  (select coalesce(max(v.version), 0)::integer from jeex.schemaversion v) as schema_version,
  pg_database_size(d.datid) as size,
  (select jsonb_object_agg(c.state, c.sessions) from (
     select coalesce(s.state, 'unknown') as state, count(*) as sessions from sessions s group by 1) c) as connections,
  current_setting('max_connections')::integer as connection_limit,
  (select count(*)::integer from waits) as locks_waiting,
  coalesce((select extract(epoch from clock_timestamp() - min(w.waitstart)) from waits w), 0)::float8 as longest_lock_wait,
  o.oldest as oldest_transaction, o.slow as slow_sessions,
  (select coalesce(jsonb_agg(jsonb_build_object('name', r.name, 'state', r.state, 'synchronous', r.synchronous,
     'lag', greatest(coalesce(r.lag, 0), 0), 'replay_lag', r.replay_lag) order by r.name), '[]') from replicas r) as replicas,
  current_setting('archive_mode') <> 'off' as archiving, w.last_archived_wal, w.last_archived_time, w.archived_count,
  w.failed_count, w.last_failed_time,
  concat_ws(' ', pg_postmaster_start_time(), d.stats_reset) as since,
  d.xact_commit + d.xact_rollback as transactions, d.blks_hit as hits, d.blks_read as reads,
  coalesce(case when has_schema_privilege(to_regnamespace('stats'), 'usage')
    then to_regprocedure('stats.pg_stat_statements(boolean)') is not null end, false) as has_statements,
  ${MAY_SEE_BASE_BACKUP} as may_see_backup,
  coalesce(has_table_privilege(to_regclass('jeex.retention'), 'select'), false) as has_retention
from pg_stat_database d, pg_stat_archiver w, (
  select coalesce(extract(epoch from clock_timestamp() - min(x.xact_start)), 0)::float8 as oldest,
    count(*) filter (where x.state = 'active' and clock_timestamp() - x.query_start > $1 * interval '1 millisecond')::integer
      as slow
  from others x) o
where d.datname = current_database()`;

const moreRow = z.object({
  queries: z.bigint().nullable(),
  backup: z.bigint().nullable(),
  pass: z.bigint().nullable(),
  payloads: z.bigint().nullable(),
  exports: z.bigint().nullable(),
  changes: z.bigint().nullable(),
});
type More = z.infer<typeof moreRow>;

/** Without the statements' texts, which PostgreSQL would read from a file. */
const QUERIES = `(select sum(s.calls)::bigint from stats.pg_stat_statements(false) s, pg_database d
  where d.oid = s.dbid and d.datname = current_database())`;

const RETENTION = ['r.end_time as pass', 'r.payloads', 'r.exports', 'r.changes'];
const NO_RETENTION = [
  'null::timestamptz as pass',
  ...['payloads', 'exports', 'changes'].map((name) => `null::bigint as ${name}`),
];

/** What only some servers tell, and only some roles: asked apart, since PostgreSQL refuses a statement that names it elsewhere. */
const more = async (
  session: MonitorSession,
  { has_statements, may_see_backup, has_retention, archiving }: LookRow,
): Promise<More> => {
  const columns = [
    `${has_statements ? QUERIES : 'null::bigint'} as queries`,
    `${may_see_backup && archiving ? LAST_BASE_BACKUP : 'null::timestamptz'} as backup`,
    ...(has_retention ? RETENTION : NO_RETENTION),
  ];
  const from = has_retention ? ' from (select) one left join jeex.retention r on true' : '';
  const [row] = await session.rows(`select ${columns.join(', ')}${from}`, [], moreRow);
  if (!row) throw new Error('PostgreSQL answers a question without a condition with no row');
  return row;
};

/**
 * Looks at the server, in two round trips.
 * @param slowMs from how many milliseconds on a statement is slow
 * @throws Error when PostgreSQL does not answer, or not as it should
 */
export const look = async (session: MonitorSession, slowMs: number): Promise<Look> => {
  const began = performance.now();
  const [row] = await session.rows(LOOK, [slowMs], lookRow);
  const latency = (performance.now() - began) / 1000;
  if (!row) throw new Error('PostgreSQL keeps no statistics of the database');
  const { queries, backup, pass, payloads, exports, changes } = await more(session, row);
  return {
    server: {
      ...serverOf(row),
      latency,
      lastBackup: backupOf(backup),
      retention: { endTime: pass, payloads: payloads ?? 0n, exports: exports ?? 0n, changes: changes ?? 0n },
    },
    archiver: archiverOf(row),
    counters: { since: row.since, transactions: row.transactions, hits: row.hits, reads: row.reads, queries },
    slowSessions: row.slow_sessions,
    now: row.now,
  };
};

const serverOf = (row: LookRow) => ({
  postgresVersion: row.version,
  schemaVersion: row.schema_version,
  connectionsByState: row.connections,
  connectionLimit: row.connection_limit,
  databaseSizeBytes: row.size,
  locksWaiting: row.locks_waiting,
  longestLockWait: row.longest_lock_wait,
  oldestTransaction: row.oldest_transaction,
  replicas: row.replicas.map(replicaOf),
});

const replicaOf = ({ lag, replay_lag, ...known }: z.infer<typeof replica>): ReplicaFigures => ({
  ...known,
  lagBytes: BigInt(lag),
  replayLag: replay_lag,
});

const archiverOf = (row: LookRow): ArchiverState => ({
  enabled: row.archiving,
  lastArchivedWal: row.last_archived_wal,
  lastArchivedTime: row.last_archived_time,
  archivedCount: row.archived_count,
  failedCount: row.failed_count,
  lastFailedTime: row.last_failed_time,
});

/** PostgreSQL's record says of a backup only when it ended. */
const backupOf = (completeTime: bigint | null): BackupFigures | null =>
  completeTime === null ? null : { kind: '', startTime: null, completeTime };
