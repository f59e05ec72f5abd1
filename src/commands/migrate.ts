import { provideDatabase } from '../db/provide.ts';
import { MigrationRefused, type Problem, refuse } from '../migrator/errors.ts';
import { label, type Migration, readMigrations, type Script } from '../migrator/files.ts';
import { down, type Migrated, type MigratorOptions, status, up } from '../migrator/migrate.ts';
import { untilInterrupted } from './interrupt.ts';
import { print, tell } from './output.ts';
import { ownerConfig, schemaConfig } from './owner.ts';

/** What `migrate up` and `migrate down` have in common. */
export interface MoveOptions {
  /** Up: the newest without one. */
  readonly to?: number | undefined;
  /** Print the SQL instead of running it. */
  readonly dryRun?: boolean | undefined;
  readonly iHaveABackup?: boolean | undefined;
  /** How long to wait for another migrator, in seconds. */
  readonly wait: number;
  readonly json?: boolean | undefined;
}

/** Applies what is missing, or prints its SQL. @throws MigrationRefused, MigrationFailed */
export async function migrateUp(options: MoveOptions): Promise<void> {
  if (options.dryRun)
    return await dryRun(({ pending }) => pending.filter(({ version }) => version <= (options.to ?? version)));
  await move(options, (url, migrator) => up(url, { ...migrator, to: options.to }));
}

/** Undoes the migrations above a version, or prints the SQL. @throws MigrationRefused, MigrationFailed */
export async function migrateDown(options: MoveOptions & { readonly to: number }): Promise<void> {
  if (options.dryRun) {
    return await dryRun(({ version }) =>
      readMigrations()
        .migrations.filter((migration) => migration.version > options.to && migration.version <= version)
        .reverse()
        .flatMap((migration) => (migration.undo === null ? [] : [{ ...migration, ...migration.undo }])),
    );
  }
  await move(options, (url, migrator) => down(url, options.to, migrator));
}

async function move(
  options: MoveOptions,
  work: (url: string, migrator: MigratorOptions) => Promise<Migrated>,
): Promise<void> {
  const { json = false, iHaveABackup: haveBackup = false, wait } = options;
  await onDatabase('write', async ({ url, embedded }) => {
    const migrator: MigratorOptions = {
      log: { info: tell },
      patienceMs: wait * 1000,
      haveBackup,
      embedded,
      onStep: json ? undefined : (step) => print(`${PAST[step.action]} ${label(step)} in ${seconds(step.durationMs)}`),
    };
    try {
      const { version, steps } = await work(url, migrator);
      if (json) print(JSON.stringify({ version, steps }));
      else print(steps.length > 0 ? `now at ${version}` : `nothing to do: at ${version}`);
    } catch (error) {
      if (json) print(JSON.stringify(failure(error as Error)));
      throw error;
    }
  });
}

const PAST = { do: 'applied', undo: 'undone' } as const;

const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 0)} s`;

/** For machines: what went wrong, and each problem apart. */
const failure = (error: Error): { error: string; problems: readonly Problem[] } => ({
  error: error.message,
  problems: error instanceof MigrationRefused ? error.problems : [],
});

type Standing = Awaited<ReturnType<typeof status>>;

/** Prints the scripts that would run, in their order. @throws MigrationRefused when none would */
async function dryRun(
  choose: (standing: Standing) => readonly (Pick<Migration, 'version' | 'name'> & Script)[],
): Promise<void> {
  await onDatabase('read', async ({ url }) => {
    const standing = await status(url);
    refuse(standing.problems);
    const scripts = choose(standing);
    for (const script of scripts) print(`-- ${label(script)}\n${script.sql}`);
    if (scripts.length === 0) print(`-- nothing to do: at ${standing.version}`);
  });
}

/** The database that a command on the schema works with. */
export interface Target {
  readonly url: string;
  /** Of this machine alone, rather than given by URL. */
  readonly embedded: boolean;
}

/**
 * Runs the work on the configured database or on the embedded one, which it starts and stops. Looking is also possible while
 * a service uses the embedded one.
 */
export async function onDatabase(use: 'read' | 'write', work: (target: Target) => Promise<void>): Promise<void> {
  const config = use === 'write' ? ownerConfig() : schemaConfig();
  await untilInterrupted(async (signal) => {
    const database = await provideDatabase(config, { share: use === 'read', log: { info: tell }, signal });
    try {
      await work({ url: database.migrationUrl, embedded: config.databaseUrl === null });
    } finally {
      await database.stop();
    }
  });
}
