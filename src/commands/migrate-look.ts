import { EXIT } from '../exit.ts';
import { headerLines } from '../migrator/directives.ts';
import { drift as readDrift } from '../migrator/drift.ts';
import { describeProblem, type Problem, refuse } from '../migrator/errors.ts';
import { label, type Migration, number } from '../migrator/files.ts';
import { oldestRelease } from '../migrator/history.ts';
import { behind, status } from '../migrator/migrate.ts';
import type { Standing } from '../migrator/preflight.ts';
import { looking } from '../migrator/session.ts';
import { onDatabase } from './migrate.ts';
import { print } from './output.ts';

interface LookOptions {
  readonly json?: boolean | undefined;
}

/** Shows the migrations and what is wrong with them; the exit code is 3 then. */
export async function migrateStatus({ json = false }: LookOptions): Promise<void> {
  await onDatabase('read', async ({ url }) => {
    const standing = await status(url);
    print(json ? JSON.stringify(asJson(standing)) : describe(standing));
    if (standing.problems.length > 0) process.exitCode = EXIT.refused;
  });
}

/** Shows what `migrate up` would do and what its files say of it. @throws MigrationRefused when it would not do it */
export async function migratePlan({ json = false }: LookOptions): Promise<void> {
  await onDatabase('read', async ({ url }) => {
    const standing = await status(url);
    const { version, latest, pending, problems } = standing;
    if (json) print(JSON.stringify({ version, latest, steps: pending.map(outline), problems }));
    refuse(problems);
    if (json) return;
    print([where(standing), ...pending.map(describeStep)].join('\n'));
    if (pending.length === 0) print('nothing to do');
  });
}

export interface VerifyOptions extends LookOptions {
  /** Compare the schema itself, too. */
  readonly drift?: boolean | undefined;
}

/**
 * Insists that the database has what this release has, as it was written, and with `drift` that its schema is still what the
 * migrations made; the exit code is 3 when something differs.
 */
export async function migrateVerify({ json = false, drift = false }: VerifyOptions): Promise<void> {
  await onDatabase('read', async ({ url }) => {
    const standing = await status(url);
    const behindBy = standing.pending.length > 0 ? [behind(standing)] : [];
    const drifted = drift ? await driftOf(url) : [];
    const problems: Problem[] = [...standing.problems, ...behindBy, ...drifted];
    if (problems.length > 0) process.exitCode = EXIT.refused;
    if (json) return print(JSON.stringify({ version: standing.version, latest: standing.latest, problems }));
    for (const problem of problems) print(`problem: ${describeProblem(problem)}`);
    if (problems.length > 0) return;
    print(`verified: ${where(standing)}, every migration as it was written`);
    if (drift) print('the schema is what the migrations made');
  });
}

/** A schema that cannot be compared has not been found good. */
async function driftOf(url: string): Promise<readonly Problem[]> {
  const found = await looking(url, (client) => readDrift(client));
  if (found.compared) return found.problems;
  return [{ code: 'DRIFT', what: `the schema was not compared: ${found.reason}`, advice: 'then verify again' }];
}

const asJson = (standing: Standing) => ({
  ...standing,
  oldestRelease: oldestRelease(standing.applied),
  pending: standing.pending.map(({ version, name }) => ({ version, name })),
});

/** A pending migration and what its head says. */
const outline = (migration: Migration) => {
  const { run, destructive, dataDependent, oldestRelease: oldest } = migration.directives;
  return { version: migration.version, name: migration.name, run, destructive, dataDependent, oldestRelease: oldest };
};

function describe(standing: Standing): string {
  const { applied, pending, problems } = standing;
  return [
    where(standing),
    ...applied.map(
      (row) => `  ${label(row)}  applied ${row.runAt.toISOString()}${row.release ? ` by ${row.release}` : ''}`,
    ),
    ...pending.map((row) => `  ${label(row)}  missing`),
    ...problems.map((problem) => `problem: ${describeProblem(problem)}`),
  ].join('\n');
}

function where({ version, latest, ahead, applied }: Standing): string {
  const oldest = oldestRelease(applied);
  const serving = oldest > 0 ? `, served by releases from ${number(oldest)} on` : '';
  return `database at ${number(version)}${serving}, this release at ${number(latest)}${ahead ? ', which may serve it' : ''}`;
}

const HOW = {
  transaction: 'in one transaction',
  concurrently: 'concurrently, in no transaction',
  batches: 'in batches, each in a transaction',
} as const;

function describeStep(migration: Migration): string {
  const { run, destructive } = migration.directives;
  const [head = ''] = migration.sql.split('\n\n', 1);
  const remarks = headerLines(head).map((line) => `      ${line.replace(/^--\s?/, '')}`);
  const asks = destructive === null ? [] : ['      asks for --i-have-a-backup, or a backup of the last hour'];
  return [`  ${label(migration)}  ${HOW[run]}`, ...remarks, ...asks].join('\n');
}
