import type { Client } from 'pg';
import { VERSION } from '../version.ts';
import type { Migration } from './files.ts';
import { type Patience, patiently, TABLE_WAITS_MS } from './patience.ts';
import { transaction } from './transaction.ts';

/** A migration as the database has it. */
export interface Applied {
  readonly version: number;
  readonly name: string;
  readonly checksum: string;
  readonly runAt: Date;
  /** The release that applied it; null before 0.3.0 told. */
  readonly release: string | null;
  /** In milliseconds; null as above. */
  readonly durationMs: number | null;
  /** The newest migration that the oldest release able to serve the schema knows; null: as before this one. */
  readonly oldestRelease: number | null;
}

/** The migrator's own tables, in schema jeex: no migration makes them, and no comparison of schemas looks at them. */
export const MIGRATOR_TABLES = ['schemaversion', 'schemaprogress'] as const;
export const HISTORY = 'jeex.schemaversion';
export const PROGRESS = 'jeex.schemaprogress';

/** Looked at first, since `add column if not exists` takes its lock also where there is nothing to add. */
const IS_READY = `select count(*) = 3 as ready from pg_attribute
where attrelid in (to_regclass('${HISTORY}'), to_regclass('${PROGRESS}')) and not attisdropped
  and attname in ('oldest_release', 'state', 'release')`;

/** Whole in one step, since services look at it without the migrator's lock, and `MIGRATE=check` as jeex_app. */
const MAKE_READY = `create schema if not exists jeex;
create table if not exists ${HISTORY} (version bigint primary key, name text, md5 text, run_at timestamptz);
alter table ${HISTORY}
  add column if not exists release text,
  add column if not exists duration_ms bigint,
  add column if not exists oldest_release bigint;
create table if not exists ${PROGRESS} (version bigint, action text, state jsonb not null, update_time timestamptz not null,
  primary key (version, action));
-- The planner's samples would keep keys of rows.
alter table ${PROGRESS} alter column state set statistics 0;
do $$ begin
  if exists (select from pg_roles where rolname = 'jeex_app') then grant select on ${HISTORY} to jeex_app; end if;
end $$`;

/**
 * Makes the migrator's own tables, or brings those of an earlier release up to date, which gives way to who looks at them: a
 * dump does as long as it takes, and behind a wait for it every service would ask in vain where its schema is.
 */
export async function prepareHistory(client: Client, patience: Patience): Promise<void> {
  const { rows } = await client.query<{ ready: boolean }>(IS_READY);
  if (rows[0]?.ready) return;
  await patiently(patience, TABLE_WAITS_MS, (wait) => transaction(client, wait, () => makeReady(client)));
}

const makeReady = async (client: Client): Promise<void> => void (await client.query(MAKE_READY));

interface HistoryRow {
  readonly version: string;
  readonly name: string;
  readonly md5: string;
  readonly run_at: Date;
  readonly release: string | null;
  readonly duration_ms: string | null;
  readonly oldest_release: string | null;
}

/** By way of JSON, since a database that an earlier release migrated lacks the columns. */
const READ = `select version::text, name, md5, run_at,
  to_jsonb(h) ->> 'release' as release, to_jsonb(h) ->> 'duration_ms' as duration_ms,
  to_jsonb(h) ->> 'oldest_release' as oldest_release
from ${HISTORY} h where version > 0 order by h.version`;

/** What was applied, in the order of the numbers; nothing where no migrator has been. */
export async function readHistory(client: Client): Promise<Applied[]> {
  const table = await client.query<{ found: boolean }>('select to_regclass($1) is not null as found', [HISTORY]);
  if (!table.rows[0]?.found) return [];
  const { rows } = await client.query<HistoryRow>(READ);
  return rows.map((row) => ({
    version: Number(row.version),
    name: row.name,
    checksum: row.md5,
    runAt: row.run_at,
    release: row.release,
    durationMs: row.duration_ms === null ? null : Number(row.duration_ms),
    oldestRelease: row.oldest_release === null ? null : Number(row.oldest_release),
  }));
}

/** The newest migration that a release must know to serve the schema; 0: any can. */
export const oldestRelease = (history: readonly Pick<Applied, 'oldestRelease'>[]): number =>
  Math.max(0, ...history.map((applied) => applied.oldestRelease ?? 0));

/**
 * What was done of a migration in several transactions belongs to the schema it was done on: it is forgotten with the
 * migration, and with every one before it that is undone.
 */
const FORGET_PROGRESS = `delete from ${PROGRESS} where version`;

/** Writes down that a migration was applied, in the transaction that did it where there is one. */
export async function record(client: Client, migration: Migration, durationMs: number): Promise<void> {
  await client.query(
    `insert into ${HISTORY} (version, name, md5, run_at, release, duration_ms, oldest_release)
     values ($1, $2, $3, clock_timestamp(), $4, $5, $6)`,
    [
      migration.version,
      migration.name,
      migration.checksum,
      VERSION,
      Math.round(durationMs),
      migration.directives.oldestRelease,
    ],
  );
  await client.query(`${FORGET_PROGRESS} = $1`, [migration.version]);
}

/** Writes down that a migration was undone. */
export async function forget(client: Client, version: number): Promise<void> {
  await client.query(`delete from ${HISTORY} where version = $1`, [version]);
  await client.query(`${FORGET_PROGRESS} >= $1`, [version]);
}
