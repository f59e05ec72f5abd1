import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Catalogue, diffCatalogues } from '../catalogue.ts';
import { expectedCatalogue, writeCatalogue } from '../drift.ts';
import { MIGRATIONS } from '../files.ts';
import { build, type Workshop } from './build.ts';
import { Hazard } from './hazards.ts';
import { loadLibraries } from './libraries.ts';
import { refuseOrder } from './order.ts';
import { prove } from './prove.ts';
import { openRenames, type Renaming } from './renames.ts';
import { openScratch, type ScratchServer } from './scratch.ts';
import { differencesOf, makeSides, type Sides } from './sides.ts';
import { type GeneratedFile, tryOut } from './trial.ts';
import { makeWriter, type Wording } from './write.ts';

export interface GenerateOptions {
  /** Of the migration: `[a-z0-9_]{1,60}`. */
  readonly name: string;
  /** Where to try things out. */
  readonly server: ScratchServer;
  /** Of the migrations and the declared schema; the release's own without one. */
  readonly directory?: string | undefined;
  /** Nothing is written. */
  readonly dryRun?: boolean | undefined;
  /** Told what is being done now. */
  readonly log?: ((line: string) => void) | undefined;
  /** Gives it up at the next occasion. */
  readonly signal?: AbortSignal | undefined;
}

export interface Generated {
  /** The new files, do and undo of each migration in order; none where the migrations make what is declared. */
  readonly files: readonly GeneratedFile[];
  /** Whether the catalogue's file was not what the migrations make. */
  readonly catalogueChanged: boolean;
}

/** Nothing was written, since what could be generated does not do what is declared, or is not what the lint lets through. */
export class NotGenerated extends Error {
  /** As far as it came. */
  readonly drafts: readonly GeneratedFile[];

  constructor(what: string, reasons: readonly string[], drafts: readonly GeneratedFile[]) {
    super([`nothing was written: ${what}`, ...reasons.map((reason) => `  ${reason}`)].join('\n'));
    this.name = 'NotGenerated';
    this.drafts = drafts;
  }
}

/**
 * Writes the migrations that lead from what the present ones make to the declared schema, and the catalogue's file: after
 * they have proved on a scratch server that they do, that their undos lead back, and that the lint has nothing against them.
 * @throws NotGenerated saying what is left over; DeclaredError naming the line of the declared schema; MigrationRefused
 *   where the present files are not as they should be
 */
export async function generate(options: GenerateOptions): Promise<Generated> {
  const { server, directory = MIGRATIONS, dryRun = false } = options;
  const libraries = await loadLibraries();
  await using scratch = await openScratch(server);
  const sides = await makeSides(directory, scratch, libraries, (line) => report(line, options));
  const writer = await makeWriter(sides.declared, sides.goal.database, libraries);
  const files = await makeFiles(sides, { scratch, libraries, writer }, options);
  const version = sides.version + files.length / 2;
  const catalogueChanged = !isWritten(directory, version, sides.catalogues.goal);
  if (!dryRun) {
    for (const { file, text } of files) writeFileSync(join(directory, file), text, { flag: 'wx' });
    if (catalogueChanged) writeCatalogue(directory, version, sides.catalogues.goal);
  }
  return { files, catalogueChanged };
}

async function makeFiles(
  sides: Sides,
  workshop: Workshop,
  options: GenerateOptions,
): Promise<readonly GeneratedFile[]> {
  const renamings = openRenames(sides.declared, sides.start.facts);
  await refuseOrder(sides.declared, sides.start.database, sides.goal.database);
  if (differencesOf(sides, workshop.libraries).length === 0) return [];
  // What is declared apart from a function, such as a setting of it, is only in PostgreSQL's own wording.
  const wordings = [workshop.writer.declared, workshop.writer.plain];
  const attempts: Attempt[] = [];
  for (const wording of wordings) {
    const made = await attempt(sides, renamings, workshop, options, wording);
    if (made.leftOver.length === 0) return accept(made, options);
    attempts.push(made);
  }
  const { files = [], leftOver = [] } = attempts[0] ?? {};
  throw new NotGenerated(BY_HAND, [...leftOver, ...sides.unmodelled], files);
}

const BY_HAND =
  'this migration has to be written by hand, since what could be generated for it does not lead where it should';
const HAZARDOUS = 'write this migration by hand, since what could be generated for it is not safe';
const AGAINST_LINT =
  'the lint has something against it: declare it otherwise, or write it by hand with the reason for an exception';

interface Attempt {
  readonly files: readonly GeneratedFile[];
  /** Why it does not do what it should. */
  readonly leftOver: readonly string[];
  readonly findings: readonly string[];
  readonly doubts: readonly string[];
}

function accept({ files, findings, doubts }: Attempt, options: GenerateOptions): readonly GeneratedFile[] {
  for (const doubt of doubts) report(doubt, options);
  if (findings.length > 0) throw new NotGenerated(AGAINST_LINT, findings, files);
  return files;
}

/** Builds the migrations in one wording and lets them prove themselves. */
async function attempt(
  sides: Sides,
  renamings: readonly Renaming[],
  workshop: Workshop,
  options: GenerateOptions,
  wording: Wording,
): Promise<Attempt> {
  const { name, directory = MIGRATIONS } = options;
  report('building the migration', options);
  try {
    const drafts = await build(sides.start, sides.goal, renamings, wording, workshop);
    using trial = await tryOut(drafts, name, directory, workshop.libraries.parser);
    report('proving it: up, all the way back, and up again', options);
    const leftOver = await prove(trial, sides.migrated, sides.catalogues.goal, workshop.scratch);
    const doubts = drafts.flatMap((draft) => draft.doubts);
    return { files: trial.files, findings: trial.findings, leftOver, doubts };
  } catch (error) {
    options.signal?.throwIfAborted();
    if (error instanceof Hazard) throw new NotGenerated(HAZARDOUS, error.reasons, []);
    return { files: [], findings: [], leftOver: [(error as Error).message], doubts: [] };
  }
}

function report(line: string, { log, signal }: GenerateOptions): void {
  signal?.throwIfAborted();
  log?.(line);
}

/** Whether the catalogue's file says this already; one that is missing or broken does not. */
function isWritten(directory: string, version: number, catalogue: Catalogue): boolean {
  try {
    const written = expectedCatalogue(directory);
    return written.version === version && diffCatalogues(catalogue, written.catalogue).length === 0;
  } catch {
    return false;
  }
}
