import { escapeIdentifier, type QueryConfig } from 'pg';
import type { BatchKey } from './directives.ts';
import { patiently, ROW_WAITS_MS } from './patience.ts';
import { readProgress, writeProgress } from './progress.ts';
import { note, type Step } from './step.ts';
import { transaction } from './transaction.ts';

/** How long the statement of one batch should take, in milliseconds: callers wait for its row locks no longer. */
const TARGET_MS = 40;
const FIRST_ROWS = 50;
const MOST_ROWS = 10_000;
const TELL_MS = 2000;

/** Values of the key's columns, as text. */
type Key = readonly string[];

/** How far a migration in batches is. */
interface Progress {
  /** The last row done; null before the first. */
  readonly after: Key | null;
  /** The last row there was at the beginning: what comes behind it is not this migration's. */
  readonly until: Key;
  readonly rows: number;
  readonly batches: number;
}

/** The rows of a batch. */
interface Page {
  readonly first: Key;
  readonly last: Key;
  readonly rows: number;
}

/**
 * Repeats a statement for one range of keys after the other, each with its progress in one transaction, so that a run that
 * ends anywhere is gone on with by the next. Rows that are inserted meanwhile are not seen: what writes them has to get
 * them right, which the migration before this one takes care of.
 */
export async function runInBatches(step: Step): Promise<void> {
  const { client, log } = step;
  const started = performance.now();
  const total = await inspect(step);
  const begun = await readProgress<Progress>(step);
  if (begun !== null) log?.info(`goes on after ${begun.rows} rows`);
  const start = begun ?? (await beginning(step));
  const done = start === null ? null : await walk(step, start, total);
  await patiently(step, ROW_WAITS_MS, (wait) => transaction(client, wait, () => note(step, started)));
  log?.info(`${done?.rows ?? 0} rows in ${done?.batches ?? 0} batches`);
}

async function walk(step: Step, start: Progress, total: number): Promise<Progress> {
  const told = { at: performance.now() };
  const started = told.at;
  let progress = start;
  for (let size = FIRST_ROWS; ; ) {
    const done = await nextBatch(step, progress, size);
    if (done === null) return progress;
    progress = done.progress;
    size = nextSize(size, done.ms);
    if (performance.now() - told.at > TELL_MS) {
      told.at = performance.now();
      step.log?.info(describe(progress, total, told.at - started));
    }
  }
}

interface Batch {
  readonly progress: Progress;
  /** How long its statement took. */
  readonly ms: number;
}

/** The next range, in a transaction with its progress; null behind the last. */
async function nextBatch(step: Step, progress: Progress, size: number): Promise<Batch | null> {
  let done: Batch | null = null;
  await patiently(step, ROW_WAITS_MS, async (wait) => {
    done = await transaction(step.client, wait, () => oneBatch(step, progress, size));
  });
  return done;
}

async function oneBatch(step: Step, progress: Progress, size: number): Promise<Batch | null> {
  const page = await nextPage(step, progress, size);
  if (page === null) return null;
  const started = performance.now();
  const values = [...page.first, ...page.last];
  await step.client.query({ text: step.script.sql, values, queryMode: 'extended' } as QueryConfig);
  const ms = performance.now() - started;
  const { until, rows, batches } = progress;
  const reached = { after: page.last, until, rows: rows + page.rows, batches: batches + 1 };
  await writeProgress(step, reached);
  return { progress: reached, ms };
}

/** The first and the last key of the next rows. Values travel as text, typed by the columns they are compared with. */
async function nextPage(step: Step, { after, until }: Progress, size: number): Promise<Page | null> {
  const { list, descending, texts, table, columns } = namesOf(step);
  const tuple = (first: number) => `(${columns.map((_, index) => `$${first + index}`).join(', ')})`;
  const beyond = after === null ? '' : ` and (${list}) > ${tuple(columns.length + 1)}`;
  const { rows } = await step.client.query<{ key: string[]; rows: number }>(
    `with page as materialized (
       select ${list} from ${table} where (${list}) <= ${tuple(1)}${beyond} order by ${list} limit ${size}
     )
     (select array[${texts}] as key, (select count(*)::int from page) as rows from page order by ${list} limit 1)
     union all
     (select array[${texts}], 0 from page order by ${descending} limit 1)`,
    [...until, ...(after ?? [])],
  );
  const [first, last] = rows;
  return first && last ? { first: first.key, last: last.key, rows: first.rows } : null;
}

/** Where a walk begins, and where it ends; null: the table is empty. */
async function beginning(step: Step): Promise<Progress | null> {
  const { texts, table, descending } = namesOf(step);
  const { rows } = await step.client.query<{ key: string[] }>(
    `select array[${texts}] as key from ${table} order by ${descending} limit 1`,
  );
  return rows[0] ? { after: null, until: rows[0].key, rows: 0, batches: 0 } : null;
}

/** The table and its key as SQL has them. */
function namesOf({ script }: Step) {
  const { table, columns } = script.directives.batch as BatchKey;
  const names = columns.map((column) => escapeIdentifier(column));
  return {
    columns,
    table: `jeex.${escapeIdentifier(table)}`,
    list: names.join(', '),
    descending: names.map((name) => `${name} desc`).join(', '),
    texts: names.map((name) => `${name}::text`).join(', '),
  };
}

/** At most twice or half of the last: one slow batch says little. */
const nextSize = (size: number, ms: number): number =>
  Math.max(1, Math.min(MOST_ROWS, Math.round(size * Math.min(2, Math.max(0.5, TARGET_MS / Math.max(ms, 1))))));

const INSPECT = `select greatest(c.reltuples, 0)::float8 as rows,
  (select count(*)::int from pg_attribute a where a.attrelid = c.oid and a.attname = any ($2) and a.attnotnull) as filled,
  exists (select from pg_index i where i.indrelid = c.oid and i.indisvalid and i.indpred is null
    and (select array_agg(a.attname::text order by k.n)
         from unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
         join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
         where k.n <= cardinality($2::text[])) = $2::text[]) as indexed
from pg_class c where c.oid = to_regclass($1)`;

/**
 * Whether the key can be walked. A row with a null in it would be passed by in silence.
 * @returns how many rows the planner believes there are; 0: it does not know
 */
async function inspect(step: Step): Promise<number> {
  const { table, columns } = step.script.directives.batch as BatchKey;
  const values = [`jeex.${escapeIdentifier(table)}`, columns];
  const { rows } = await step.client.query<{ rows: number; filled: number; indexed: boolean }>(INSPECT, values);
  const [found] = rows;
  const key = `${table} (${columns.join(', ')})`;
  if (found === undefined) throw new Error(`there is no table ${table}, which \`batch:\` names`);
  if (found.filled < columns.length) throw new Error(`\`batch: ${key}\` takes columns that are not null`);
  if (!found.indexed) throw new Error(`\`batch: ${key}\` takes columns that an index begins with, in its order`);
  return found.rows;
}

function describe({ rows }: Progress, total: number, ms: number): string {
  const share = total > 0 ? `, about ${Math.min(99, Math.floor((100 * rows) / total))} %` : '';
  return `${rows} rows${share} after ${(ms / 1000).toFixed(0)} s`;
}
