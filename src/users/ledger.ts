import type { Client } from 'pg';

/** An entry of the ledger of erasures. */
export interface Erasure {
  readonly userId: string;
  /** ISO 8601, in UTC. */
  readonly eraseTime: string;
  readonly caller: string;
  readonly correlationId: string;
}

/** What applying an entry did: `UNKNOWN` where there is no such user. */
export type Applied = 'ERASED' | 'ALREADY_ERASED' | 'UNKNOWN';

const PAGE = 1000;

/** The ledger, in the order of the users' ids, page by page. Only the owner may read it. */
export async function* readLedger(owner: Client): AsyncGenerator<Erasure> {
  let after = '00000000-0000-0000-0000-000000000000';
  for (;;) {
    const { rows } = await owner.query<{ entry: Erasure }>(
      `select json_build_object('userId', user_id, 'eraseTime', erase_time, 'caller', caller, 'correlationId', correlation_id)
         as entry
       from erasures where user_id > $1 order by user_id limit ${PAGE}`,
      [after],
    );
    for (const { entry } of rows) yield entry;
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last.entry.userId;
  }
}

/**
 * Erases a user by its ledger entry, in one transaction; again: nothing. Only the owner may.
 * @param correlationId of the changes it makes, where memberships end
 */
export async function applyEntry(owner: Client, userId: string, correlationId: string): Promise<Applied> {
  const { rows } = await owner.query<{ applied: Applied }>(
    `select erase_user(row(null, 'erasures apply', $2, null, null, null, null)::call, $1) as applied`,
    [userId, correlationId],
  );
  return rows[0]?.applied ?? 'UNKNOWN';
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/**
 * Reads a kept ledger, either form of which `erasures list` prints: a JSON object with `userId`, or a line that begins with the
 * user's id. Empty lines are passed over.
 * @returns the ids, each once
 * @throws Error naming the first line that is neither, so that a damaged copy is not applied in part
 */
export async function parseLedger(lines: AsyncIterable<string>): Promise<Set<string>> {
  const ids = new Set<string>();
  let number = 0;
  for await (const line of lines) {
    number += 1;
    if (line.trim() === '') continue;
    const id = idIn(line);
    if (id === null)
      throw new Error(`line ${number} of the ledger has no user id: expected what \`erasures list\` prints`);
    ids.add(id);
  }
  return ids;
}

function idIn(line: string): string | null {
  const id = line.trimStart().startsWith('{') ? userIdOf(line) : line.trim().split(/\s/, 1)[0];
  return typeof id === 'string' && UUID.test(id) ? id.toLowerCase() : null;
}

function userIdOf(line: string): unknown {
  try {
    return (JSON.parse(line) as { userId?: unknown }).userId;
  } catch {
    return null;
  }
}
