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
