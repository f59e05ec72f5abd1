import type { Problem } from './errors.ts';
import { label, latestVersion, type Migration, type MigrationSet, number } from './files.ts';
import { type Applied, oldestRelease } from './history.ts';

/** How a database and a release's migrations stand to each other. */
export interface Standing {
  /** The newest migration the database has; 0 before the first. */
  readonly version: number;
  /** The newest migration this release has. */
  readonly latest: number;
  readonly applied: readonly Applied[];
  readonly pending: readonly Migration[];
  /** A later release has migrated the database, and this one may go on serving it. */
  readonly ahead: boolean;
  /** Why nothing can be applied, undone or served; empty when all is well. */
  readonly problems: readonly Problem[];
}

/** Compares what was applied with the files; pure. */
export function compare({ migrations, problems }: MigrationSet, applied: readonly Applied[]): Standing {
  const version = applied.at(-1)?.version ?? 0;
  const latest = latestVersion(migrations);
  return {
    version,
    latest,
    applied,
    pending: migrations.filter((migration) => migration.version > version),
    ahead: version > latest,
    problems: [
      ...problems,
      ...tooNew(applied, latest),
      ...applied.filter((row) => row.version <= latest).flatMap((row) => altered(row, migrations)),
      ...late(migrations, applied, version),
    ],
  };
}

/** Whether this release may serve the database as it is, once it has nothing pending. */
function tooNew(applied: readonly Applied[], latest: number): Problem[] {
  const oldest = oldestRelease(applied);
  if (oldest <= latest) return [];
  const { release } = applied.find((row) => row.version === oldest) ?? {};
  const serving = release ? `release ${release} or later` : `a release that has migration ${number(oldest)}`;
  return [
    {
      code: 'AHEAD',
      what:
        `the database is at version ${applied.at(-1)?.version}, and the oldest release that can serve it knows migration ` +
        `${number(oldest)}; this one knows up to ${number(latest)}`,
      advice: `start ${serving}, or let the release that migrated it run \`migrate down --to ${latest}\``,
    },
  ];
}

/** What was applied under a number that this release has, too. */
function altered(row: Applied, migrations: readonly Migration[]): Problem[] {
  const file = migrations.find(({ version }) => version === row.version);
  if (file === undefined) {
    return [
      {
        code: 'GONE',
        what: `migration ${label(row)} was applied, and its file is missing`,
        advice: 'bring the file back as it was: what was applied stays part of every later release',
      },
    ];
  }
  if (file.checksum === row.checksum) return [];
  if (file.name !== row.name) {
    return [
      {
        code: 'OTHER',
        what: `migration ${number(row.version)} was applied as ${row.name}, and is ${file.name} here`,
        advice:
          `two branches took one number: bring back ${row.name} as it was applied, and give ${file.name} the next free ` +
          'number',
      },
    ];
  }
  return [
    {
      code: 'CHECKSUM',
      what: `migration ${label(file)} was changed after it had been applied`,
      advice: 'bring the file back as it was applied, and put the change into a new migration',
    },
  ];
}

/** A number below the newest that the database has passed by. */
const late = (migrations: readonly Migration[], applied: readonly Applied[], version: number): Problem[] => {
  const done = new Set(applied.map((row) => row.version));
  return migrations
    .filter((migration) => migration.version < version && !done.has(migration.version))
    .map((migration) => ({
      code: 'LATE',
      what: `migration ${label(migration)} arrived after ${number(version)} had been applied, and was never run`,
      advice: 'give it the next free number; its old number must belong to what the database has there, or be gone',
    }));
};
