import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { z } from 'zod';
import {
  byIdentity,
  type Catalogue,
  type Difference,
  describeDifference,
  diffCatalogues,
  readCatalogue,
} from './catalogue.ts';
import type { Problem } from './errors.ts';
import { CATALOGUE_FILE, MIGRATIONS } from './files.ts';
import { readHistory } from './history.ts';

/** What the migrations up to a version make. */
interface ExpectedCatalogue {
  readonly version: number;
  readonly catalogue: Catalogue;
}

/** An object of a live database that is not what the migrations make. */
interface DriftProblem extends Problem, Pick<Difference, 'identity' | 'kind'> {
  readonly code: 'DRIFT';
}

export type Drift =
  | { readonly compared: true; readonly problems: readonly DriftProblem[] }
  /** Why there is nothing to compare with. */
  | { readonly compared: false; readonly reason: string };

/** Whose way of writing definitions the file has; another major version may write the same in other words. */
const POSTGRES = 18;

const file = z.strictObject({ version: z.int().nonnegative(), objects: z.record(z.string(), z.string()) });

/** What a release's migrations make, by the file beside them. @throws Error saying what to do when it is missing or broken */
export function expectedCatalogue(directory: string = MIGRATIONS): ExpectedCatalogue {
  const path = join(directory, CATALOGUE_FILE);
  try {
    const { version, objects } = file.parse(JSON.parse(readFileSync(path, 'utf8')));
    return { version, catalogue: new Map(Object.entries(objects)) };
  } catch (error) {
    const advice = 'install the package again, or let `jeex-persistence migrate generate` write it';
    throw new Error(`${path} does not tell what the migrations make: ${(error as Error).message}; ${advice}`, {
      cause: error,
    });
  }
}

/** Writes that file: an object a line in the order of their identities, so that a review sees what a migration changes. */
export function writeCatalogue(directory: string, version: number, catalogue: Catalogue): void {
  const entries = [...catalogue].map(([identity, definition]) => ({ identity, definition })).sort(byIdentity);
  const objects = Object.fromEntries(entries.map(({ identity, definition }) => [identity, definition]));
  writeFileSync(join(directory, CATALOGUE_FILE), `${JSON.stringify({ version, objects }, null, 2)}\n`);
}

/**
 * How a live database differs from what its release's migrations make. Says why instead where that cannot be told: at any
 * other version than the release's newest, and on another major version of PostgreSQL.
 * @param client of any role, outside a transaction
 * @param directory the release's migrations
 * @throws Error as `expectedCatalogue` does, or DatabaseError when the catalog cannot be read
 */
export async function drift(client: Client, directory: string = MIGRATIONS): Promise<Drift> {
  const expected = expectedCatalogue(directory);
  const reason = (await foreignServer(client)) ?? notAt(expected.version, await newest(client));
  if (reason !== null) return { compared: false, reason };
  const found = await readCatalogue(client);
  if ((await newest(client)) !== expected.version) {
    return { compared: false, reason: 'a migration ran meanwhile: ask again when it has ended' };
  }
  const problems = diffCatalogues(expected.catalogue, found).map((difference) => ({
    code: 'DRIFT' as const,
    identity: difference.identity,
    kind: difference.kind,
    what: describeDifference(difference),
    advice: adviceOn(difference),
  }));
  return { compared: true, problems };
}

async function foreignServer(client: Client): Promise<string | null> {
  const { rows } = await client.query<{ major: number }>(
    `select current_setting('server_version_num')::int / 10000 as major`,
  );
  const major = rows[0]?.major;
  if (major === POSTGRES) return null;
  return `${CATALOGUE_FILE} has definitions as PostgreSQL ${POSTGRES} writes them, and the server is PostgreSQL ${major}`;
}

const newest = async (client: Client): Promise<number> => (await readHistory(client)).at(-1)?.version ?? 0;

function notAt(expected: number, version: number): string | null {
  if (version === expected) return null;
  const state = `the database is at version ${version}, and this release tells what version ${expected} is`;
  return version < expected
    ? `${state}: run \`jeex-persistence migrate up\` first`
    : `${state}: ask with the release that migrated it`;
}

/** What to do: a migration declares what is to stay; to undo the rest is the operator's to judge and to run. */
function adviceOn(difference: Difference): string {
  const file = `migrations/${CATALOGUE_FILE}`;
  if (difference.kind === 'extra') return 'if it is to stay, declare it in a migration; if not, remove it';
  if (difference.kind === 'missing')
    return `if it is to go, drop it in a migration; if not, make it again as ${file} has it`;
  return (
    repairOf(difference) ?? `if it is to stay so, declare it in a migration; if not, put it back as ${file} has it`
  );
}

/** States that no migration leaves behind, and the statement that ends each. */
function repairOf({ identity, expected = '', found = '' }: Difference): string | null {
  const [, kind, name, table] = /^(\w+) (.+?)(?: on (.+))?$/.exec(identity) ?? [];
  const arose = (state: string): boolean => found.includes(state) && !expected.includes(state);
  if (kind === 'index' && arose(', INVALID')) return `\`reindex index concurrently ${name}\``;
  if (kind === 'constraint' && arose(' NOT VALID'))
    return `once every row fits: \`alter table ${table} validate constraint ${name}\``;
  if (kind === 'trigger' && arose(', disabled')) return `\`alter table ${table} enable trigger ${name}\``;
  const walls = ['row security enabled', 'row security forced'];
  if (kind === 'table' && walls.some((wall) => expected.includes(wall) && !found.includes(wall))) {
    const statement = `alter table ${name} enable row level security, force row level security`;
    return `at once, since projects are no longer kept apart: \`${statement}\``;
  }
  return null;
}
