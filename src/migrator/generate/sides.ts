import { type Catalogue, describeDifference, diffCatalogues, readCatalogue } from '../catalogue.ts';
import { refuse } from '../errors.ts';
import { readMigrations } from '../files.ts';
import { up } from '../migrate.ts';
import type { Place } from './build.ts';
import { planBetween, readFacts, withoutMigratorTables } from './compare.ts';
import { type Declared, loadDeclared, readDeclared } from './declared.ts';
import type { Libraries } from './libraries.ts';
import { connected, type Scratch, type ScratchDatabase } from './scratch.ts';

/** What the migrations make and what is declared, each in a database of its own. */
export interface Sides {
  /** The number of the newest migration. */
  readonly version: number;
  readonly declared: Declared;
  /** As the migrator leaves it. */
  readonly migrated: ScratchDatabase;
  /** The same without what is the migrator's own. */
  readonly start: Place;
  readonly goal: Place;
  readonly catalogues: { readonly start: Catalogue; readonly goal: Catalogue };
  /** What one of them has and pg-delta knows nothing about. */
  readonly unmodelled: readonly string[];
}

/**
 * Makes both sides from a directory of migrations with its declared schema.
 * @throws DeclaredError, MigrationRefused and MigrationFailed about the files
 */
export async function makeSides(
  directory: string,
  scratch: Scratch,
  libraries: Libraries,
  log: (line: string) => void,
): Promise<Sides> {
  const { migrations, problems } = readMigrations(directory);
  refuse(problems);
  const declared = readDeclared(directory, libraries.parser);
  log(`making what ${migrations.length} migrations make, and what is declared, in two scratch databases`);
  const [migrated, goal] = await Promise.all([scratch.copy(), scratch.copy()]);
  await Promise.all([up(migrated.url, { directory, embedded: true }), loadDeclared(declared, goal)]);
  const start = await scratch.copy(migrated);
  await withoutMigratorTables(start);
  log('comparing the two');
  const catalogues = { start: await readCatalogueOf(start), goal: await readCatalogueOf(goal) };
  const [startFacts, goalFacts] = await Promise.all([readFacts(start, libraries), readFacts(goal, libraries)]);
  return {
    version: migrations.length,
    declared,
    migrated,
    start: { database: start, facts: startFacts.base },
    goal: { database: goal, facts: goalFacts.base },
    catalogues,
    unmodelled: [...new Set([...startFacts.unmodelled, ...goalFacts.unmodelled])],
  };
}

/** How the sides differ, by the comparison that migrations are generated from and by the catalogue; empty: not at all. */
export function differencesOf({ start, goal, catalogues }: Sides, libraries: Libraries): string[] {
  return [
    ...planBetween(start.facts, goal.facts, libraries).map(({ sql }) => `${sql};`),
    ...diffCatalogues(catalogues.goal, catalogues.start).map(describeDifference),
  ];
}

const readCatalogueOf = ({ url }: ScratchDatabase): Promise<Catalogue> => connected(url, readCatalogue);
