import { EXIT } from '../exit.ts';
import { headerLines } from '../migrator/directives.ts';
import { drift as readDrift } from '../migrator/drift.ts';
import { describeProblem, type Problem, refuse } from '../migrator/errors.ts';
import { label, number } from '../migrator/files.ts';
import { type Applied, oldestRelease } from '../migrator/history.ts';
import { behind, status } from '../migrator/migrate.ts';
import type { Standing } from '../migrator/preflight.ts';
import { type RouteStep, routeUp } from '../migrator/route.ts';
import { looking } from '../migrator/session.ts';
import { describeProgress, type Unfinished } from '../migrator/unfinished.ts';
import { onDatabase } from './migrate.ts';
import { answer, duration } from './migrate-answer.ts';

interface LookOptions {
  readonly json?: boolean | undefined;
}

/** Shows the migrations and what is wrong with them; the exit code is 3 then. */
export const migrateStatus = async ({ json = false }: LookOptions): Promise<void> =>
  await answer(json, () =>
    onDatabase('read', async ({ url }) => {
      const standing = await status(url);
      if (standing.problems.length > 0) process.exitCode = EXIT.refused;
      return { json: asJson(standing), text: describe(standing) };
    }),
  );

/** Shows what `migrate up` would do and what its files say of it. @throws MigrationRefused when it would not do it */
export const migratePlan = async ({ json = false }: LookOptions): Promise<void> =>
  await answer(json, () =>
    onDatabase('read', async ({ url }) => {
      const standing = await status(url);
      const { version, latest } = standing;
      const { steps, problems } = routeUp(standing);
      refuse(problems);
      const planned = steps.map((step) => ({ ...step, begun: begunOf(standing, step.version) }));
      const lines = planned.length > 0 ? planned.map(describeStep) : ['nothing to do'];
      return {
        json: { version, latest, steps: planned.map(outline), problems },
        text: [where(standing), ...lines].join('\n'),
      };
    }),
  );

export interface VerifyOptions extends LookOptions {
  /** Compare the schema itself, too. */
  readonly drift?: boolean | undefined;
}

/**
 * Insists that the database has what this release has, as it was written, and with `drift` that its schema is still what the
 * migrations made; the exit code is 3 when something differs.
 */
export const migrateVerify = async ({ json = false, drift = false }: VerifyOptions): Promise<void> =>
  await answer(json, () =>
    onDatabase('read', async ({ url }) => {
      const standing = await status(url);
      const { version, latest, pending } = standing;
      const behindBy = pending.length > 0 ? [behind(standing)] : [];
      const drifted = drift ? await driftOf(url) : [];
      const problems: Problem[] = [...standing.problems, ...behindBy, ...drifted];
      if (problems.length > 0) process.exitCode = EXIT.refused;
      const verified = [
        `verified: ${where(standing)}, every migration as it was written`,
        ...(drift ? ['the schema is what the migrations made'] : []),
      ];
      const lines = problems.length > 0 ? problems.map(tellProblem) : verified;
      return { json: { version, latest, problems }, text: lines.join('\n') };
    }),
  );

const tellProblem = (problem: Problem): string => `problem: ${describeProblem(problem)}`;

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

/** A migration that would be applied. */
interface Planned extends Pick<RouteStep, 'version' | 'name' | 'script'> {
  /** What an earlier run has done of it already; null: nothing. */
  readonly begun: Unfinished | null;
}

const begunOf = ({ unfinished }: Standing, version: number): Unfinished | null =>
  unfinished.find((step) => step.action === 'do' && step.version === version) ?? null;

/** A planned migration and what its head says. */
const outline = ({ version, name, script, begun }: Planned) => {
  const { run, destructive, dataDependent, oldestRelease: oldest } = script.directives;
  const done = begun && { rows: begun.rows, batches: begun.batches };
  return { version, name, run, destructive, dataDependent, oldestRelease: oldest, begun: done };
};

function describe(standing: Standing): string {
  const { applied, pending, problems } = standing;
  return [
    where(standing),
    ...applied.map(tellApplied),
    ...pending.map((row) => `  ${label(row)}  missing${tellBegun(begunOf(standing, row.version))}`),
    ...problems.map(tellProblem),
  ].join('\n');
}

/** A release before 0.3 wrote down neither its number nor the time. */
function tellApplied(row: Applied): string {
  const by = row.release === null ? '' : ` by ${row.release}`;
  const took = row.durationMs === null ? '' : ` in ${duration(row.durationMs)}`;
  return `  ${label(row)}  applied ${row.runAt.toISOString()}${by}${took}`;
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

function describeStep({ version, name, script, begun }: Planned): string {
  const { run, destructive } = script.directives;
  const [head = ''] = script.sql.split('\n\n', 1);
  const remarks = headerLines(head).map((line) => `      ${line.replace(/^--\s?/, '')}`);
  const asks = destructive === null ? [] : ['      asks for --i-have-a-backup, or a backup of the last hour'];
  return [`  ${label({ version, name })}  ${HOW[run]}${tellBegun(begun)}`, ...remarks, ...asks].join('\n');
}

const tellBegun = (begun: Unfinished | null): string => (begun === null ? '' : `; ${describeProgress(begun)}`);
