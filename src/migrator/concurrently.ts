import { type Client, escapeIdentifier, type QueryConfig } from 'pg';
import { CANCELLED } from './errors.ts';
import { clearProgress, readProgress, writeProgress } from './progress.ts';
import { note, type Step } from './step.ts';
import { transaction } from './transaction.ts';

const STATEMENT =
  /^\s*(create\s+(?:unique\s+)?index|drop\s+index)\s+concurrently\s+(?:"([^"]+)"|(?!(?:on|if)\b)([a-z_][\w$]*)(?![\w$.]))/i;

/** How often it is told what a build does, in milliseconds. */
const TELL_MS = 10_000;
/** How long the row of the migration may wait for its table, in milliseconds. */
const NOTE_WAIT_MS = 5000;

/** An index as it is: not there, left unfinished by a crash or a failure, or good. */
type IndexState = 'absent' | 'invalid' | 'valid';

/**
 * Runs the one statement of a concurrent index, which PostgreSQL allows in no transaction. A claim written before it tells
 * the next run what a crash has left: an unfinished index is dropped and built again, a finished one is only written down.
 * Waiting for a lock here holds nobody up, so it has no limit.
 */
export async function runConcurrently(step: Step): Promise<void> {
  const { client, script, log } = step;
  const started = performance.now();
  const { verb, index } = parse(script.sql);
  const claimed = (await readProgress(step)) !== null;
  if (!claimed) await writeProgress(step, { index });
  const before = await indexState(client, index);
  const finished = claimed && before === (verb === 'create' ? 'valid' : 'absent');
  await client.query('set lock_timeout = 0');
  await telling(step, async () => {
    if (verb === 'create' && before === 'invalid') {
      log?.info(`the index ${index} was left unfinished: it is dropped and built again`);
      await drop(client, index);
    }
    if (!finished) await single(step, index);
  });
  await transaction(client, NOTE_WAIT_MS, () => note(step, started));
}

/** What the file does, and to which index. @throws Error when it does something else */
function parse(sql: string): { verb: 'create' | 'drop'; index: string } {
  const statement = sql.replace(/^\s*--.*$/gm, '');
  const [, verb, quoted, plain] = STATEMENT.exec(statement) ?? [];
  const index = quoted ?? plain?.toLowerCase();
  if (verb === undefined || index === undefined) {
    throw new Error(
      '`run: concurrently` takes one `create index concurrently name …` or `drop index concurrently name`',
    );
  }
  return { verb: /^create/i.test(verb) ? 'create' : 'drop', index };
}

/** Tells now and then what the work does, and whom it waits for. */
async function telling(step: Step, work: () => Promise<void>): Promise<void> {
  const { log, watch } = step;
  const tell = async () => {
    const told = await watch.build();
    if (told !== null) log?.info(told);
  };
  const timer = setInterval(() => void tell(), TELL_MS);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
}

/** The statement alone, which the extended protocol insists on; a build that failed takes away what it left. */
async function single(step: Step, index: string): Promise<void> {
  try {
    await step.client.query({ text: step.script.sql, queryMode: 'extended' } as QueryConfig);
  } catch (error) {
    // Who cancelled it would not want to wait for the clean-up.
    if ((error as { code?: string }).code !== CANCELLED) await cleanUp(step, index);
    throw error;
  }
}

async function cleanUp(step: Step, index: string): Promise<void> {
  try {
    if ((await indexState(step.client, index)) === 'invalid') await drop(step.client, index);
    await clearProgress(step);
  } catch {
    // What the statement failed of says more; the claim is still there, and the next run finds what is left.
  }
}

async function indexState(client: Client, index: string): Promise<IndexState> {
  const { rows } = await client.query<{ valid: boolean }>(
    'select indisvalid and indisready as valid from pg_index where indexrelid = to_regclass($1)',
    [`jeex.${escapeIdentifier(index)}`],
  );
  if (rows[0] === undefined) return 'absent';
  return rows[0].valid ? 'valid' : 'invalid';
}

async function drop(client: Client, index: string): Promise<void> {
  await client.query(`drop index concurrently if exists jeex.${escapeIdentifier(index)}`);
}
