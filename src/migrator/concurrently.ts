import { type Client, escapeIdentifier, type QueryConfig } from 'pg';
import { clearProgress, readProgress, writeProgress } from './progress.ts';
import { note, type Step, transaction } from './step.ts';

const STATEMENT =
  /^\s*(create\s+(?:unique\s+)?index|drop\s+index)\s+concurrently\s+(?:if\s+(?:not\s+)?exists\s+)?"?([a-z_][a-z0-9_]*)"?/i;

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
  if (verb === 'create' && before === 'invalid') {
    log?.info(`the index ${index} was left unfinished: it is dropped and built again`);
    await drop(client, index);
  }
  if (!finished) await single(step, index);
  await transaction(client, 0, async () => {
    await note(step, started);
    await clearProgress(step);
  });
}

/** What the file does, and to which index. @throws Error when it does something else */
function parse(sql: string): { verb: 'create' | 'drop'; index: string } {
  const statement = sql.replace(/^\s*--.*$/gm, '');
  const [, verb, index] = STATEMENT.exec(statement) ?? [];
  if (verb === undefined || index === undefined) {
    throw new Error(
      '`run: concurrently` takes one `create index concurrently name …` or `drop index concurrently name`',
    );
  }
  return { verb: /^create/i.test(verb) ? 'create' : 'drop', index };
}

/** The statement alone, which the extended protocol insists on; a build that failed takes away what it left. */
async function single(step: Step, index: string): Promise<void> {
  const { client, script } = step;
  try {
    await client.query({ text: script.sql, queryMode: 'extended' } as QueryConfig);
  } catch (error) {
    if ((await indexState(client, index)) === 'invalid') await drop(client, index);
    await clearProgress(step);
    throw error;
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
