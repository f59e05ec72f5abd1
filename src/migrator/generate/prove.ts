import { type Catalogue, describeDifference, diffCatalogues, readCatalogue } from '../catalogue.ts';
import { down, up } from '../migrate.ts';
import { connected, type Scratch, type ScratchDatabase } from './scratch.ts';
import type { Trial } from './trial.ts';

/**
 * Runs new migrations by the migrator itself, on a database at the version before them: up step by step, all the way back,
 * and up again. Every step back leads to the same schema as before it, and both ways up to the declared one.
 * @param migrated at the version before them
 * @returns what is not as it should be; empty: the proof
 */
export async function prove(
  { directory, versions }: Trial,
  migrated: ScratchDatabase,
  declared: Catalogue,
  scratch: Scratch,
): Promise<string[]> {
  const { url } = await scratch.copy(migrated);
  const options = { directory, embedded: true };
  const read = () => connected(url, readCatalogue);
  const passed = [await read()];
  for (const to of versions) {
    await up(url, { ...options, to });
    passed.push(await read());
  }
  const problems = compare('after them the schema is not the declared one', declared, passed.at(-1));
  for (const [index, version] of [...versions.entries()].toReversed()) {
    await down(url, version - 1, options);
    problems.push(
      ...compare(`the undo of ${version} leads to another schema than there was`, passed[index], await read()),
    );
  }
  await up(url, options);
  problems.push(
    ...compare('after undoing and applying them again the schema is not the declared one', declared, await read()),
  );
  return problems;
}

function compare(what: string, expected: Catalogue | undefined, found: Catalogue | undefined): string[] {
  const differences = diffCatalogues(expected ?? new Map(), found ?? new Map());
  return differences.map((difference) => `${what}: ${describeDifference(difference)}`);
}
