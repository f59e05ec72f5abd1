import type { Problem } from './errors.ts';
import type { Migration, MigrationSet, Script } from './files.ts';
import type { Standing } from './preflight.ts';

/** A script that is to run. */
export interface RouteStep extends Pick<Migration, 'version' | 'name'> {
  readonly action: 'do' | 'undo';
  readonly script: Script;
}

/** What leads from where a database is to a version. */
export interface Route {
  /** The version it leads to. */
  readonly to: number;
  /** In the order they run; none: there is nothing to do. */
  readonly steps: readonly RouteStep[];
  /** Why it may not be taken. */
  readonly problems: readonly Problem[];
}

/** The way up to a version, the newest without one; pure. */
export function routeUp(standing: Standing, target?: number): Route {
  const { version, latest, pending, problems } = standing;
  const to = target ?? Math.max(latest, version);
  const steps = pending
    .filter((migration) => migration.version <= to)
    .map((migration) => stepOf(migration, 'do', migration));
  return { to, steps, problems: [...problems, ...wrongUp(standing, to)] };
}

/** The way down to a version, newest first; pure. */
export function routeDown(standing: Standing, { migrations }: Pick<MigrationSet, 'migrations'>, to: number): Route {
  const { version } = standing;
  const steps = migrations
    .filter((migration) => migration.version > to && migration.version <= version)
    .flatMap((migration) => (migration.undo === null ? [] : [stepOf(migration, 'undo', migration.undo)]))
    .reverse();
  const problems = standing.problems.filter((problem) => !isMendedBelow(problem, standing, to));
  return { to, steps, problems: [...problems, ...wrongDown(standing, to)] };
}

const stepOf = ({ version, name }: Migration, action: RouteStep['action'], script: Script): RouteStep => ({
  version,
  name,
  action,
  script,
});

/** Going back is the way out of what shuts everybody out, and of an undo that was begun. */
function isMendedBelow({ code }: Problem, { ahead, unfinished }: Standing, to: number): boolean {
  if (code === 'AHEAD') return !ahead;
  return code === 'UNFINISHED' && unfinished.every(({ action, version }) => action === 'do' || version > to);
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
