import type { Client } from 'pg';
import { CATALOGUE_QUERY } from './catalogue-queries.ts';
import { MIGRATOR_TABLES } from './history.ts';

/** What a schema is: the definition of each of its objects by the object's identity, such as `column jeex.users.email`. */
export type Catalogue = ReadonlyMap<string, string>;

/** An object that is not what was expected. */
export interface Difference {
  readonly identity: string;
  readonly kind: 'missing' | 'extra' | 'changed';
  /** Its definition; absent where it should not be there. */
  readonly expected?: string;
  /** Its definition; absent where it is not there. */
  readonly found?: string;
}

/** PostgreSQL writes names, dates and bytes as these say, so that the same schema reads the same in every session. */
const SETTINGS = `set local search_path = ''; set local quote_all_identifiers = off; set local datestyle = 'ISO';
set local intervalstyle = 'postgres'; set local timezone = 'UTC'; set local bytea_output = 'hex';
set local extra_float_digits = 1; set local statement_timeout = '30s'; set local jit = off`;

/**
 * What the schema of a database is, without the migrator's own tables: the same for every role that asks, and for every way
 * to the same schema.
 * @param client outside a transaction
 * @throws DatabaseError when the catalog cannot be read within 30 s
 */
export async function readCatalogue(client: Client): Promise<Catalogue> {
  await client.query('begin transaction isolation level repeatable read read only');
  try {
    await client.query(SETTINGS);
    const { rows } = await client.query<{ identity: string; definition: string }>(CATALOGUE_QUERY, [MIGRATOR_TABLES]);
    return new Map(rows.sort(byIdentity).map(({ identity, definition }) => [identity, definition]));
  } finally {
    // A lost connection has ended it by itself.
    await client.query('rollback').catch(() => {});
  }
}

/** By code units: the same order on every system. */
export const byIdentity = (a: { readonly identity: string }, b: { readonly identity: string }): number =>
  a.identity < b.identity ? -1 : Number(a.identity > b.identity);

/** How one catalogue differs from another, by identity; empty when they are the same. */
export function diffCatalogues(expected: Catalogue, found: Catalogue): Difference[] {
  const differences: Difference[] = [];
  for (const [identity, definition] of expected) {
    const other = found.get(identity);
    if (other === undefined) differences.push({ identity, kind: 'missing', expected: definition });
    else if (other !== definition) differences.push({ identity, kind: 'changed', expected: definition, found: other });
  }
  for (const [identity, definition] of found) {
    if (!expected.has(identity)) differences.push({ identity, kind: 'extra', found: definition });
  }
  return differences.sort(byIdentity);
}

/** A difference in a line, or two: of a long definition only the first line that differs. */
export function describeDifference({ identity, kind, expected = '', found = '' }: Difference): string {
  if (kind === 'missing') return `${identity} is missing${inBrief(expected)}`;
  if (kind === 'extra') return `${identity} should not be there${inBrief(found)}`;
  const [was, is] = [expected.split('\n'), found.split('\n')];
  const line = was.findIndex((text, index) => text !== is[index]);
  const at = line < 0 ? was.length : line;
  const place = was.length + is.length > 2 ? ` in line ${at + 1}` : '';
  return `${identity} differs${place}: expected ${excerpt(was[at], is[at])}, found ${excerpt(is[at], was[at])}`;
}

const WIDTH = 200;
/** How much is shown before the place where two lines part. */
const BEFORE = 60;

/** A definition of one line; a longer one is in the catalogue's file. */
const inBrief = (definition: string): string =>
  definition === '' || definition.includes('\n') || definition.length > WIDTH ? '' : ` (${definition})`;

/** A line as it is, or of a long one the part around where it parts from the other. */
function excerpt(line: string | undefined, other = ''): string {
  if (line === undefined) return 'its end';
  if (line.length <= WIDTH) return `"${line}"`;
  let parting = 0;
  while (parting < line.length && line[parting] === other[parting]) parting += 1;
  const start = Math.max(0, parting - BEFORE);
  const end = start + WIDTH;
  return `"${start > 0 ? '…' : ''}${line.slice(start, end)}${end < line.length ? '…' : ''}"`;
}
