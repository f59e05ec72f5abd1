import type { Client } from 'pg';
import { z } from 'zod';

const erasure = z.object({
  userId: z.guid().toLowerCase(),
  /** ISO 8601, in UTC. */
  eraseTime: z.iso.datetime({ offset: true }),
  correlationId: z.guid().toLowerCase(),
  /** Of the DeleteUser that erased it. */
  caller: z.string().max(255),
});
/** An entry of the ledger of erasures. */
export type Erasure = Readonly<z.infer<typeof erasure>>;

/** What applying an entry did: `UNKNOWN` where there is no such user. */
export type Applied = 'ERASED' | 'ALREADY_ERASED' | 'UNKNOWN';

const PAGE = 1000;

/** The ledger, in the order of the users' ids, page by page. Only the owner may read it. */
export async function* readLedger(owner: Client): AsyncGenerator<Erasure> {
  let after = '00000000-0000-0000-0000-000000000000';
  for (;;) {
    const { rows } = await owner.query<{ entry: Erasure }>(
      `select json_build_object('userId', user_id, 'eraseTime', erase_time, 'correlationId', correlation_id, 'caller', caller)
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
 * Erases a user by its ledger entry, in one transaction, and keeps the entry as it is, also of a user who is not here: an
 * import may bring it later. Again: nothing. Only the owner may.
 * @param correlationId of the changes it makes, where memberships end
 */
export async function applyEntry(owner: Client, entry: Erasure, correlationId: string): Promise<Applied> {
  const { userId, eraseTime, caller } = entry;
  const { rows } = await owner.query<{ applied: Applied }>(
    `select erase_user(row(null, 'erasures apply', $1, null, null, null, null)::call, row($2, $3, $4, $5)::erasures) as applied`,
    [correlationId, userId, eraseTime, caller, entry.correlationId],
  );
  return rows[0]?.applied ?? 'UNKNOWN';
}

/** An entry as a line for people, which `parseLedger` reads again: the caller is last, since it may hold blanks. */
export const formatEntry = ({ userId, eraseTime, correlationId, caller }: Erasure): string =>
  `${userId} ${eraseTime} ${correlationId} ${caller}`;

/**
 * Reads a kept ledger, either form of which `erasures list` prints: a JSON object, or what `formatEntry` makes. Empty lines
 * are passed over.
 * @returns the entries by the user's id, the first of each
 * @throws Error naming the first line that is no entry, so that a damaged copy is not applied in part
 */
export async function parseLedger(lines: AsyncIterable<string>): Promise<ReadonlyMap<string, Erasure>> {
  const entries = new Map<string, Erasure>();
  let number = 0;
  for await (const line of lines) {
    number += 1;
    if (line.trim() === '') continue;
    const { data: entry } = erasure.safeParse(line.trimStart().startsWith('{') ? parseJson(line) : fieldsOf(line));
    if (entry === undefined)
      throw new Error(`line ${number} of the ledger is no entry: expected what \`erasures list\` prints`);
    if (!entries.has(entry.userId)) entries.set(entry.userId, entry);
  }
  return entries;
}

const fieldsOf = (line: string): unknown =>
  /^(?<userId>\S+) (?<eraseTime>\S+) (?<correlationId>\S+) (?<caller>.*)$/.exec(line)?.groups;

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
