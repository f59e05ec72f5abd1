import type { Client } from 'pg';
import type { MigrateMode } from '../config.ts';
import { requireBackup } from './backup.ts';
import { Engine, type EngineOptions, type StepDone } from './engine.ts';
import { type Problem, refuse } from './errors.ts';
import { label, type Migration, type MigrationSet, readMigrations } from './files.ts';
import { prepareHistory, readHistory } from './history.ts';
import { compare, type Standing } from './preflight.ts';
import { alone, looking, type SessionOptions } from './session.ts';

export interface MigratorOptions extends SessionOptions, EngineOptions {
  /** Instead of the release's own migrations, for tests. */
  readonly directory?: string | undefined;
  /** Somebody has answered for a backup: what is destructive may run. */
  readonly haveBackup?: boolean | undefined;
  /** The database is the embedded one, which is asked for no backup. */
  readonly embedded?: boolean | undefined;
}

export interface Migrated {
  /** Where the database is now. */
  readonly version: number;
  /** What was done now, in that order. */
  readonly steps: readonly StepDone[];
}

/**
 * What a start does about the schema: bring it up to date (`auto`), insist that this release can serve it (`check`), or
 * nothing (`off`).
 * @param url the owner, direct; for `check` the app's own will do, through a pooler, too
 * @throws MigrationRefused listing everything the preflight found; MigrationFailed naming the migration that failed
 */
export async function migrate(url: string, options: MigratorOptions & { mode: MigrateMode }): Promise<Migrated> {
  const { mode, ...rest } = options;
  if (mode === 'off') return { version: 0, steps: [] };
  const standing = await status(url, rest);
  refuse(standing.problems);
  if (standing.pending.length === 0) return { version: standing.version, steps: [] };
  if (mode === 'check') refuse([behind(standing)]);
  const done = await up(url, rest);
  options.log?.info(`the schema is at version ${done.version} (${done.steps.length} migrations applied)`);
  return done;
}

/**
 * Applies what is missing, in order, up to a version; the newest without one.
 * @throws as `migrate` does, and MigrationRefused when the version is not above the database's
 */
export async function up(url: string, options: MigratorOptions & { to?: number | undefined } = {}): Promise<Migrated> {
  const files = readMigrations(options.directory);
  return await alone(url, options, async (client) => {
    const standing = compare(files, await readHistory(client));
    const { version, latest, pending } = standing;
    const target = options.to ?? Math.max(latest, version);
    refuse([...standing.problems, ...wrongUp(standing, target)]);
    const steps = pending.filter((migration) => migration.version <= target);
    if (steps.length === 0) return { version, steps: [] };
    await askForBackup(client, steps, options);
    return await run(client, files, target, options);
  });
}

/**
 * Undoes the migrations above a version, newest first. Data in what they made is lost.
 * @throws as `migrate` does, and MigrationRefused when the version is above the database's, or this release lacks the way back
 */
export async function down(url: string, to: number, options: MigratorOptions = {}): Promise<Migrated> {
  const files = readMigrations(options.directory);
  return await alone(url, options, async (client) => {
    const standing = compare(files, await readHistory(client));
    const { version } = standing;
    refuse([...standing.problems, ...wrongDown(standing, to)]);
    if (to === version) return { version, steps: [] };
    const steps = files.migrations.filter((migration) => migration.version > to && migration.version <= version);
    const scripts = steps.flatMap(({ version: number, name, undo }) =>
      undo ? [{ ...undo, version: number, name }] : [],
    );
    await askForBackup(client, scripts, options);
    return await run(client, files, to, options);
  });
}

/** What the database has and what is missing; changes nothing. @throws Error when the database cannot be reached */
export async function status(url: string, options: Pick<MigratorOptions, 'directory'> = {}): Promise<Standing> {
  const files = readMigrations(options.directory);
  return await looking(url, async (client) => compare(files, await readHistory(client)));
}

async function run(client: Client, files: MigrationSet, to: number, options: EngineOptions): Promise<Migrated> {
  await prepareHistory(client);
  const engine = new Engine(client, files.migrations, options);
  await engine.migrate(String(to));
  return { version: to, steps: engine.steps };
}

type Destructive = Pick<Migration, 'version' | 'name' | 'directives'>;

/** @throws MigrationRefused when one of the scripts loses data that no backup is known to hold */
async function askForBackup(client: Client, scripts: readonly Destructive[], options: MigratorOptions): Promise<void> {
  const destructive = scripts.flatMap(({ version, name, directives }) =>
    directives.destructive === null ? [] : [{ version, name, reason: directives.destructive }],
  );
  if (destructive.length === 0) return;
  await requireBackup(client, {
    destructive,
    haveBackup: options.haveBackup ?? false,
    embedded: options.embedded ?? false,
  });
}

function wrongUp({ version, latest, ahead }: Standing, to: number): Problem[] {
  if (to < version) {
    const advice = `to go back, run \`jeex-persistence migrate down --to ${to}\``;
    return [{ code: 'TARGET', what: `the database is at version ${version}, which is above ${to}`, advice }];
  }
  if (to > latest && !ahead) {
    const advice = 'leave --to out to apply everything there is';
    return [{ code: 'TARGET', what: `there is no migration ${to}: the newest is ${latest}`, advice }];
  }
  return [];
}

function wrongDown({ version, latest, ahead, applied }: Standing, to: number): Problem[] {
  if (to > version) {
    const advice = 'to go forward, run `jeex-persistence migrate up`';
    return [{ code: 'TARGET', what: `the database is at version ${version}, which is below ${to}`, advice }];
  }
  if (!ahead || to === version) return [];
  const what = `the database is at version ${version}, and this release knows the way back only from ${latest}`;
  const release = applied.at(-1)?.release;
  return [
    { code: 'TARGET', what, advice: `run it with ${release ? `release ${release}` : 'the release'} that migrated it` },
  ];
}

/** What a database lacks of this release. */
export const behind = ({ version, latest, pending }: Standing): Problem => ({
  code: 'BEHIND',
  what: `the database is at version ${version}, and this release needs ${latest} (missing: ${pending.map(label).join(', ')})`,
  advice: 'run `jeex-persistence migrate up`',
});
