import type { Client } from 'pg';
import type { Problem } from './errors.ts';
import { label, latestVersion, type Migration, type MigrationSet, number } from './files.ts';
import { type Applied, oldestRelease, readHistory } from './history.ts';
import { readUnfinished, type Unfinished } from './unfinished.ts';

/** How a database and a release's migrations stand to each other. */
export interface Standing {
  /** The newest migration the database has; 0 before the first. */
  readonly version: number;
  /** The newest migration this release has. */
  readonly latest: number;
  readonly applied: readonly Applied[];
  readonly pending: readonly Migration[];
  /** As far as the role that looks may see it. */
  readonly unfinished: readonly Unfinished[];
  /** A later release has migrated the database, and this one may go on serving it. */
  readonly ahead: boolean;
  /** Why nothing can be applied, undone or served; empty when all is well. */
  readonly problems: readonly Problem[];
}

/** Reads where a database stands; changes nothing. */
export async function look(client: Client, files: MigrationSet): Promise<Standing> {
  const applied = await readHistory(client);
  return compare(files, applied, await readUnfinished(client, applied));
}

/** Compares what was applied with the files. */
function compare(
  { migrations, problems }: MigrationSet,
  applied: readonly Applied[],
  unfinished: readonly Unfinished[],
): Standing {
  const version = applied.at(-1)?.version ?? 0;
  const latest = latestVersion(migrations);
  return {
    version,
    latest,
    applied,
    pending: migrations.filter((migration) => migration.version > version),
    unfinished,
    ahead: version > latest,
    problems: [
      ...problems,
      ...tooNew(applied, latest),
      ...applied.filter((row) => row.version <= latest).flatMap((row) => altered(row, migrations)),
      ...late(migrations, applied, version),
      ...unfinished.filter(({ action }) => action === 'undo').map(halfUndone),
    ],
  };
}

/** Whether this release may serve the database as it is, once it has nothing pending. */
function tooNew(applied: readonly Applied[], latest: number): Problem[] {
  const oldest = oldestRelease(applied);
  if (oldest <= latest) return [];
  const version = applied.at(-1)?.version ?? 0;
  const { version: shutOutBy, release } = applied.find((row) => row.oldestRelease === oldest) as Applied;
  const knowing = `a release that has migration ${number(oldest)}`;
  const serving = release && version > latest ? `release ${release} or later` : knowing;
  const back =
    version > latest
      ? `let the release that migrated it run \`migrate down --to ${latest}\``
      : `run \`jeex-persistence migrate down --to ${shutOutBy - 1}\``;
  return [
    {
      code: 'AHEAD',
      what:
        `the database is at version ${version}, and the oldest release that can serve it knows migration ` +
        `${number(oldest)}; this one knows up to ${number(latest)}`,
      advice: `start ${serving}, or ${back}`,
    },
  ];
}

/** Neither the migration before it nor the one it undoes is what the schema holds then. */
function halfUndone({ version, rows }: Unfinished): Problem {
  const done = rows === null ? '' : ` and has done ${rows} ${rows === 1 ? 'row' : 'rows'}`;
  return {
    code: 'UNFINISHED',
    what: `the undo of ${number(version)} was begun${done}`,
    advice: `finish it with \`jeex-persistence migrate down --to ${version - 1}\``,
  };
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

const OWNER = `select current_user::text as role,
  (select rolsuper from pg_roles where rolname = current_user) as super,
  (select nspowner::regrole::text from pg_namespace where nspname = 'jeex') as owner,
  (select datdba = (select oid from pg_roles where rolname = current_user) from pg_database
   where datname = current_database()) as "ownsDatabase"`;

interface Ownership {
  readonly role: string;
  readonly super: boolean;
  /** Of the schema; null where there is none. */
  readonly owner: string | null;
  readonly ownsDatabase: boolean;
}

/** Why the session's role may not migrate: what it made would belong to it, and the schema's owner could not work with it. */
export async function notTheOwner(client: Client): Promise<Problem[]> {
  const { rows } = await client.query<Ownership>(OWNER);
  const { role, super: isSuper, owner, ownsDatabase } = rows[0] as Ownership;
  if (owner === null) {
    if (role === 'jeex_owner' || (ownsDatabase && !isSuper)) return [];
    const advice = 'run `jeex-persistence bootstrap` first, and then migrate as jeex_owner';
    return [{ code: 'OWNER', what: `there is no schema jeex, and ${role} is not who is to make it`, advice }];
  }
  if (role === owner) return [];
  const advice = `name the role ${owner} in MIGRATION_DATABASE_URL`;
  return [{ code: 'OWNER', what: `the schema jeex belongs to ${owner}, and this session is ${role}'s`, advice }];
}
