import { escapeIdentifier, type QueryConfig } from 'pg';
import type { BatchKey } from './directives.ts';
import { patiently } from './patience.ts';
import { clearProgress, readProgress, writeProgress } from './progress.ts';
import { note, type Step, transaction } from './step.ts';

/** How long the statement of one batch should take, in milliseconds: callers wait for its row locks no longer. */
const TARGET_MS = 40;
const FIRST_ROWS = 50;
const MOST_ROWS = 10_000;
const TELL_MS = 2000;

/** How far a migration in batches is. */
interface Progress {
  /** The key of the last row done, as text; null before the first. */
  readonly after: readonly string[] | null;
  readonly rows: number;
  readonly batches: number;
}

interface Page {
  readonly first: readonly string[];
  readonly last: readonly string[];
  readonly rows: number;
}

/**
 * Repeats a statement for one range of keys after the other, each with its progress in one transaction, so that a run that
 * ends anywhere is gone on with by the next. Rows that are inserted meanwhile before the place it has reached are not
 * seen: what writes them has to get them right, which the migration before this one takes care of.
 */
export async function runInBatches(step: Step): Promise<void> {
  const { client, log, script } = step;
  const key = script.directives.batch as BatchKey;
  const started = performance.now();
  const total = await estimate(step, key);
  let progress = (await readProgress<Progress>(step)) ?? { after: null, rows: 0, batches: 0 };
  if (progress.after !== null) log?.info(`goes on after ${progress.rows} rows`);
  let size = FIRST_ROWS;
  let toldAt = started;
  for (;;) {
    let done: { progress: Progress; ms: number } | null = null;
    await patiently(client, log, async (lockTimeoutMs) => {
      done = await transaction(client, lockTimeoutMs, () => oneBatch(step, key, progress, size));
    });
    if (done === null) break;
    const { ms, progress: reached } = done as { progress: Progress; ms: number };
    progress = reached;
    size = nextSize(size, ms);
    if (performance.now() - toldAt > TELL_MS) {
      toldAt = performance.now();
      log?.info(describe(progress, total, toldAt - started));
    }
  }
  await transaction(client, 0, async () => {
    await note(step, started);
    await clearProgress(step);
  });
  log?.info(`${progress.rows} rows in ${progress.batches} batches`);
}

/** The next range, or null behind the last. */
async function oneBatch(step: Step, key: BatchKey, { after, rows, batches }: Progress, size: number) {
  const { client, script } = step;
  const page = await nextPage(step, key, after, size);
  if (page === null) return null;
  const started = performance.now();
  await client.query({
    text: script.sql,
    values: [...page.first, ...page.last],
    queryMode: 'extended',
  } as QueryConfig);
  const ms = performance.now() - started;
  const progress = { after: page.last, rows: rows + page.rows, batches: batches + 1 };
  await writeProgress(step, progress);
  return { progress, ms };
}

/** The first and the last key of the next rows. Values travel as text, typed by the columns they are compared with. */
async function nextPage(
  step: Step,
  key: BatchKey,
  after: readonly string[] | null,
  size: number,
): Promise<Page | null> {
  const columns = key.columns.map((column) => escapeIdentifier(column));
  const list = columns.join(', ');
  const beyond = after === null ? '' : `where (${list}) > (${columns.map((_, index) => `$${index + 1}`).join(', ')})`;
  const texts = columns.map((column) => `${column}::text`).join(', ');
  const { rows } = await step.client.query<{ key: string[]; rows: number }>(
    `with page as materialized (
       select ${list} from jeex.${escapeIdentifier(key.table)} ${beyond} order by ${list} limit ${size}
     )
     (select array[${texts}] as key, (select count(*)::int from page) as rows from page order by ${list} limit 1)
     union all
     (select array[${texts}], 0 from page order by ${columns.map((column) => `${column} desc`).join(', ')} limit 1)`,
    after === null ? [] : [...after],
  );
  const [first, last] = rows;
  return first && last ? { first: first.key, last: last.key, rows: first.rows } : null;
}

/** At most twice or half of the last: one slow batch says little. */
const nextSize = (size: number, ms: number): number =>
  Math.max(1, Math.min(MOST_ROWS, Math.round(size * Math.min(2, Math.max(0.5, TARGET_MS / Math.max(ms, 1))))));

/** What the planner believes the table holds; 0: it does not know. */
async function estimate({ client }: Step, { table }: BatchKey): Promise<number> {
  const { rows } = await client.query<{ rows: number }>(
    'select greatest(reltuples, 0)::float8 as rows from pg_class where oid = to_regclass($1)',
    [`jeex.${escapeIdentifier(table)}`],
  );
  if (rows[0] === undefined) throw new Error(`there is no table ${table}, which \`batch:\` names`);
  return rows[0].rows;
}

function describe({ rows }: Progress, total: number, ms: number): string {
  const share = total > 0 ? `, about ${Math.min(99, Math.floor((100 * rows) / total))} %` : '';
  return `${rows} rows${share} after ${(ms / 1000).toFixed(0)} s`;
}
