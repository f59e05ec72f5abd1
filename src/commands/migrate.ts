import { provideDatabase } from '../db/provide.ts';
import { refuse } from '../migrator/errors.ts';
import { label, readMigrations } from '../migrator/files.ts';
import { down, type Migrated, type MigratorOptions, status, up } from '../migrator/migrate.ts';
import type { Standing } from '../migrator/preflight.ts';
import { type Route, routeDown, routeUp } from '../migrator/route.ts';
import { untilInterrupted } from './interrupt.ts';
import { type Answer, answer, duration } from './migrate-answer.ts';
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
export const migrateUp = async (options: MoveOptions): Promise<void> =>
  await answer(options.json ?? false, () =>
    options.dryRun
      ? dryRun((standing) => routeUp(standing, options.to))
      : move(options, (url, migrator) => up(url, { ...migrator, to: options.to })),
  );

/** Undoes the migrations above a version, or prints the SQL. @throws MigrationRefused, MigrationFailed */
export const migrateDown = async (options: MoveOptions & { readonly to: number }): Promise<void> =>
  await answer(options.json ?? false, () =>
    options.dryRun
      ? dryRun((standing) => routeDown(standing, readMigrations(), options.to))
      : move(options, (url, migrator) => down(url, options.to, migrator)),
  );

const move = async (
  { json = false, iHaveABackup: haveBackup = false, wait }: MoveOptions,
  work: (url: string, migrator: MigratorOptions) => Promise<Migrated>,
): Promise<Answer> =>
  await onDatabase('write', async ({ url, embedded, signal }) => {
    const { version, steps } = await work(url, {
      log: { info: tell },
      patienceMs: wait * 1000,
      signal,
      haveBackup,
      embedded,
      onStep: json ? undefined : (step) => print(`${PAST[step.action]} ${label(step)} in ${duration(step.durationMs)}`),
    });
    return { json: { version, steps }, text: steps.length > 0 ? `now at ${version}` : `nothing to do: at ${version}` };
  });

const PAST = { do: 'applied', undo: 'undone' } as const;

/** The scripts that would run, in their order. @throws MigrationRefused when none would, as without `--dry-run` */
const dryRun = async (choose: (standing: Standing) => Route): Promise<Answer> =>
  await onDatabase('read', async ({ url }) => {
    const standing = await status(url);
    const { steps, problems } = choose(standing);
    refuse(problems);
    const scripts = steps.map(({ version, name, action, script }) => ({ version, name, action, sql: script.sql }));
    const text = scripts.map((script) => `-- ${label(script)}\n${script.sql}`).join('\n');
    return {
      json: { version: standing.version, steps: scripts },
      text: text || `-- nothing to do: at ${standing.version}`,
    };
  });

/** The database that a command on the schema works with. */
export interface Target {
  readonly url: string;
  /** Of this machine alone, rather than given by URL. */
  readonly embedded: boolean;
  /** Aborts when the command is interrupted. */
  readonly signal: AbortSignal;
}

/**
 * Runs the work on the configured database or on the embedded one, which it starts and stops. Looking is also possible while
 * a service uses the embedded one.
 */
export async function onDatabase(use: 'read' | 'write', work: (target: Target) => Promise<Answer>): Promise<Answer> {
  const config = use === 'write' ? ownerConfig() : schemaConfig();
  return await untilInterrupted(async (signal) => {
    const database = await provideDatabase(config, { share: use === 'read', log: { info: tell }, signal });
    try {
      return await work({ url: database.migrationUrl, embedded: config.databaseUrl === null, signal });
    } finally {
      await database.stop();
    }
  });
}
