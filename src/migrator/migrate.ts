import type { Client } from 'pg';
import type { MigrateMode } from '../config.ts';
import { requireBackup } from './backup.ts';
import { Engine, type EngineOptions, type StepDone } from './engine.ts';
import { type Problem, refuse } from './errors.ts';
import { label, type MigrationSet, readMigrations } from './files.ts';
import { prepareHistory } from './history.ts';
import { look, notTheOwner, type Standing } from './preflight.ts';
import { type Route, type RouteStep, routeDown, routeUp } from './route.ts';
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
  /** Where the database is now; null where nobody has looked, in mode `off`. */
  readonly version: number | null;
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
  if (mode === 'off') return { version: null, steps: [] };
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
 * @throws as `migrate` does, and MigrationRefused when the version is not above the database's; `reachedBefore` tells what
 *   was done before
 */
export const up = async (url: string, options: MigratorOptions & { to?: number | undefined } = {}): Promise<Migrated> =>
  await take(url, options, (standing) => routeUp(standing, options.to));

/**
 * Undoes the migrations above a version, newest first. Data in what they made is lost.
 * @throws as `up` does, and MigrationRefused when the version is above the database's, or this release lacks the way back
 */
export const down = async (url: string, to: number, options: MigratorOptions = {}): Promise<Migrated> =>
  await take(url, options, (standing, files) => routeDown(standing, files, to));

/** What the database has and what is missing; changes nothing. @throws Error when the database cannot be reached */
export async function status(url: string, options: Pick<MigratorOptions, 'directory'> = {}): Promise<Standing> {
  const files = readMigrations(options.directory);
  return await looking(url, (client) => look(client, files));
}

/** Takes a route as the database's only migrator. */
async function take(
  url: string,
  options: MigratorOptions,
  choose: (standing: Standing, files: MigrationSet) => Route,
): Promise<Migrated> {
  const files = readMigrations(options.directory);
  const begun: { steps: readonly StepDone[]; from: number | null } = { steps: [], from: null };
  try {
    return await alone(url, options, async (client, watch) => {
      refuse(await notTheOwner(client));
      const standing = await look(client, files);
      begun.from = standing.version;
      const { to, steps, problems } = choose(standing, files);
      refuse(problems);
      if (steps.length === 0) return { version: standing.version, steps: [] };
      await askForBackup(client, steps, options);
      await prepareHistory(client, { ...options, watch });
      const engine = new Engine(client, watch, files.migrations, options);
      begun.steps = engine.steps;
      await engine.migrate(String(to));
      return { version: to, steps: engine.steps };
    });
  } catch (error) {
    keepReached(error, { version: versionAfter(begun.steps) ?? begun.from, steps: begun.steps });
    throw error;
  }
}

/** Numbers have no gap: what is undone leaves the one before it. */
function versionAfter(steps: readonly StepDone[]): number | undefined {
  const last = steps.at(-1);
  return last && (last.action === 'do' ? last.version : last.version - 1);
}

/** By the error, whatever it is: who interrupts a migration gets his own reason back. */
const REACHED = new WeakMap<object, Migrated>();

function keepReached(error: unknown, reached: Migrated): void {
  if (typeof error === 'object' && error !== null) REACHED.set(error, reached);
}

/** How far `up` or `down` had come when it threw that; undefined of what it did not throw. */
export const reachedBefore = (error: object): Migrated | undefined => REACHED.get(error);

/** @throws MigrationRefused when one of the scripts loses data that no backup is known to hold */
async function askForBackup(client: Client, steps: readonly RouteStep[], options: MigratorOptions): Promise<void> {
  const destructive = steps.flatMap(({ version, name, script }) =>
    script.directives.destructive === null ? [] : [{ version, name, reason: script.directives.destructive }],
  );
  await requireBackup(client, {
    destructive,
    haveBackup: options.haveBackup ?? false,
    embedded: options.embedded ?? false,
  });
}

/** What a database lacks of this release. */
export const behind = ({ version, latest, pending }: Standing): Problem => ({
  code: 'BEHIND',
  what: `the database is at version ${version}, and this release needs ${latest} (missing: ${pending.map(label).join(', ')})`,
  advice: 'run `jeex-persistence migrate up`',
});
