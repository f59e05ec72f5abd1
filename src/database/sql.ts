import { z } from 'zod';
import { sql, statement } from '../db/statement.ts';

const verdict = sql.fragment`coalesce(refuse_actor(asked.actor), 'OK') as verdict`;

/** Asks nothing but whether the actor may ask; no row says more. */
export const admit = statement({
  name: 'database.admit',
  params: { actor: 'uuid?' },
  row: z.object({ verdict: z.string() }),
  sql: (p) => sql.fragment`select ${verdict} from (select ${p.actor} as actor) as asked`,
});

export const schemaVersion = statement({
  name: 'database.schema_version',
  params: { actor: 'uuid?' },
  row: z.object({ version: z.int() }),
  sql: (p) => sql.fragment`
select ${verdict}, (select coalesce(max(s.version), 0)::integer from schemaversion s) as version
from (select ${p.actor} as actor) as asked`,
});

const healthRow = z.object({
  postgres_version: z.string(),
  schema_version: z.int(),
  size: z.bigint(),
  hits: z.bigint(),
  reads: z.bigint(),
  connections: z.record(z.string(), z.int()),
  connection_limit: z.int(),
  archiving: z.boolean(),
  last_archived_wal: z.string().nullable(),
  last_archived_time: z.bigint().nullable(),
  archived_count: z.bigint(),
  failed_count: z.bigint(),
  last_failed_time: z.bigint().nullable(),
});
export type HealthRow = z.infer<typeof healthRow>;

/** What PostgreSQL tells any role of itself. Other roles' sessions show no state: they count as `unknown`. */
export const health = statement({
  name: 'database.health',
  params: { actor: 'uuid?' },
  row: healthRow,
  sql: (p) => sql.fragment`
select ${verdict}, current_setting('server_version') as postgres_version,
  (select coalesce(max(s.version), 0)::integer from schemaversion s) as schema_version,
  pg_database_size(d.datid) as size, d.blks_hit as hits, d.blks_read as reads,
  (select coalesce(jsonb_object_agg(a.state, a.sessions), '{}') from (
     select coalesce(s.state, 'unknown') as state, count(*) as sessions from pg_stat_activity s
     where s.datid is not null group by 1) as a) as connections,
  current_setting('max_connections')::integer as connection_limit,
  current_setting('archive_mode') <> 'off' as archiving, w.last_archived_wal, w.last_archived_time, w.archived_count,
  w.failed_count, w.last_failed_time
from (select ${p.actor} as actor) as asked, pg_stat_database d, pg_stat_archiver w
where d.datname = current_database()`,
});

const migrationRow = z.object({
  version: z.int(),
  name: z.string(),
  checksum: z.string(),
  time: z.bigint(),
  release: z.string().nullable(),
  duration_ms: z.bigint().nullable(),
  oldestRelease: z.int().nullable(),
});
export type MigrationRow = z.infer<typeof migrationRow>;

export const migrations = statement({
  name: 'database.migrations',
  params: { actor: 'uuid?' },
  row: z.union([migrationRow, z.object({ version: z.null() })]),
  // By way of JSON, since a migrator of an earlier release made the table without these columns.
  sql: (p) => sql.fragment`
select ${verdict}, s.version::integer as version, s.name, s.md5 as checksum, s.run_at as time,
  to_jsonb(s) ->> 'release' as release, (to_jsonb(s) ->> 'duration_ms')::bigint as duration_ms,
  (to_jsonb(s) ->> 'oldest_release')::integer as "oldestRelease"
from (select ${p.actor} as actor) as asked left join schemaversion s on s.version > 0
order by s.version`,
});
