import { ConfigError } from '../config.ts';
import { CATALOGUE_FILE } from '../migrator/files.ts';
import { type Generated, generate, NotGenerated } from '../migrator/generate/generate.ts';
import { loadLibraries } from '../migrator/generate/libraries.ts';
import { startScratchServer } from '../migrator/generate/scratch.ts';
import { untilInterrupted } from './interrupt.ts';
import { print, tell } from './output.ts';

export interface MigrateGenerateOptions {
  /** Of the migration. */
  readonly name: string;
  /** Print what would be written instead. */
  readonly dryRun?: boolean | undefined;
  readonly json?: boolean | undefined;
}

const NAME = /^[a-z0-9_]{1,60}$/;

/**
 * Writes the migration that makes the declared schema of the present one, and its undo.
 * @throws ConfigError for a name that no file can have; NotGenerated, DeclaredError, MigrationRefused
 */
export async function migrateGenerate({ name, dryRun = false, json = false }: MigrateGenerateOptions): Promise<void> {
  if (!NAME.test(name))
    throw new ConfigError([`name: expected 1 to 60 of a-z, 0-9 and _, got ${JSON.stringify(name)}`]);
  // What is missing is told before a server is started for nothing.
  await loadLibraries();
  await untilInterrupted(async (signal) => {
    tell('starting a temporary PostgreSQL');
    await using server = await startScratchServer(tell, signal);
    const generated = await generate({ name, server, dryRun, log: tell, signal }).catch((error: Error) => {
      const drafts = error instanceof NotGenerated ? error.drafts : [];
      if (json) print(JSON.stringify({ error: error.message, drafts }));
      else if (dryRun) show(drafts, dryRun);
      else if (drafts.length > 0) tell('`--dry-run` shows how far it came');
      throw error;
    });
    if (json) print(JSON.stringify({ dryRun, ...generated }));
    else describe(generated, dryRun);
  });
}

function describe({ files, catalogueChanged }: Generated, dryRun: boolean): void {
  if (files.length === 0) print('nothing to do: the migrations make what schema.sql declares');
  show(files, dryRun);
  if (catalogueChanged) print(dryRun ? `${CATALOGUE_FILE} would change` : `wrote ${CATALOGUE_FILE}`);
}

function show(files: Generated['files'], dryRun: boolean): void {
  for (const { file, text } of files) print(dryRun ? `==== ${file} ====\n${text}` : `wrote ${file}`);
}
