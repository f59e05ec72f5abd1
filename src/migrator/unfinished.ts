import type { Client } from 'pg';
import { type Applied, PROGRESS } from './history.ts';

/** A step in several transactions that was begun and is not done: under way now, or left so by one that ended. */
export interface Unfinished {
  readonly version: number;
  readonly action: 'do' | 'undo';
  /** Done so far; null of what is no migration in batches. */
  readonly rows: number | null;
  readonly batches: number | null;
}

/** In pg_class, since `to_regclass` fails for a role that may not look into the schema. */
const MAY_READ = `select coalesce(bool_or(has_table_privilege(oid, 'select')), false) as may from pg_class
where relname = $1 and relnamespace = (select oid from pg_namespace where nspname = $2)`;

const READ = `select version::int, action, (state -> 'done' ->> 'rows')::float8 as rows,
  (state -> 'done' ->> 'batches')::float8 as batches
from ${PROGRESS} order by version, action`;

/**
 * What was begun and is not done, by the progress that the migrator keeps. Nothing for a role that may not read that: the
 * keys of rows in it are the owner's alone.
 */
export async function readUnfinished(client: Client, applied: readonly Applied[]): Promise<Unfinished[]> {
  const [schema, table] = PROGRESS.split('.');
  const asked = await client.query<{ may: boolean }>(MAY_READ, [table, schema]);
  if (!asked.rows[0]?.may) return [];
  const { rows } = await client.query<Unfinished>(READ);
  const done = new Set(applied.map(({ version }) => version));
  return rows.filter(({ version, action }) => done.has(version) === (action === 'undo'));
}

/** How far a step is. */
export const describeProgress = ({ rows, batches }: Unfinished): string =>
  rows === null || batches === null
    ? 'begun'
    : `begun: ${rows} ${rows === 1 ? 'row' : 'rows'} in ${batches} ${batches === 1 ? 'batch' : 'batches'}`;
