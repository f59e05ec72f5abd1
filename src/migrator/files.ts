import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Directives, parseDirectives } from './directives.ts';
import type { Problem } from './errors.ts';

/** A script of a migration as it stands in its file. */
export interface Script {
  /** Absolute. */
  readonly filename: string;
  readonly sql: string;
  /** MD5 of the script with line feeds: of a do, what the database keeps of it. */
  readonly checksum: string;
  readonly directives: Directives;
}

/** A migration as this release has it. */
export interface Migration extends Script {
  readonly version: number;
  readonly name: string;
  /** The way back; null where its file is missing, which is a problem. */
  readonly undo: Script | null;
}

export interface MigrationSet {
  /** In the order of their numbers. */
  readonly migrations: readonly Migration[];
  /** What is wrong with the files alone. */
  readonly problems: readonly Problem[];
}

export const MIGRATIONS = fileURLToPath(new URL('../../migrations', import.meta.url));

/** What a person declares, and what the migrations make of it: they stand beside the migrations and are none. */
export const SCHEMA_FILE = 'schema.sql';
export const CATALOGUE_FILE = 'catalogue.json';

const FILE_NAME = /^(\d{3,9})\.(do|undo)\.([a-z0-9_-]+)\.sql$/;

/** The migrations of a directory. @throws Error when the directory cannot be read */
export function readMigrations(directory: string = MIGRATIONS): MigrationSet {
  const problems: Problem[] = [];
  const dos = new Map<number, Omit<Migration, 'undo'>>();
  const undos = new Map<number, Undo>();
  for (const file of readdirSync(directory).sort()) {
    if (file === SCHEMA_FILE || file === CATALOGUE_FILE) continue;
    const [, number, action, name] = FILE_NAME.exec(file) ?? [];
    if (number === undefined || name === undefined) {
      problems.push(strange(file));
      continue;
    }
    const version = Number(number);
    const { script, wrong } = readScript(join(directory, file), version);
    problems.push(...wrong);
    const known = action === 'do' ? dos.get(version) : undos.get(version)?.script;
    if (known !== undefined) problems.push(doubled(file, basename(known.filename)));
    else if (action === 'do') dos.set(version, { ...script, version, name });
    else undos.set(version, { script, name });
  }
  const migrations = [...dos.values()]
    .sort((a, b) => a.version - b.version)
    .map((migration) => ({ ...migration, undo: undos.get(migration.version)?.script ?? null }));
  return { migrations, problems: [...problems, ...numbering(migrations, undos)] };
}

/** The migrations this release has, in order. */
export const migrationFiles = (): readonly Migration[] => readMigrations().migrations;

/** The newest migration this release has: the schema it needs. */
export const latestVersion = (migrations: readonly { readonly version: number }[] = migrationFiles()): number =>
  Math.max(0, ...migrations.map(({ version }) => version));

/** A migration's number and name, as people are told of it. */
export const label = ({ version, name }: { readonly version: number; readonly name: string }): string =>
  `${number(version)} ${name}`;

/** A migration's number as its file has it. */
export const number = (version: number): string => String(version).padStart(3, '0');

/** A way back, and what its file says it is of. */
interface Undo {
  readonly script: Script;
  readonly name: string;
}

function readScript(file: string, version: number): { script: Script; wrong: Problem[] } {
  const filename = resolve(file);
  const sql = readFileSync(filename, 'utf8').replace(/\r\n?/g, '\n');
  const checksum = createHash('md5').update(sql).digest('hex');
  const { directives, problems } = parseDirectives(sql);
  return {
    script: { filename, sql, checksum, directives },
    wrong: [...problems, ...beyond(version, directives)].map((problem) => ({
      code: 'DIRECTIVE',
      what: `the head of ${basename(filename)}: ${problem}`,
      advice: 'README, "Writing a migration", has the list of what its head may say',
    })),
  };
}

/** No release could serve such a schema, not even the one that makes it. */
const beyond = (version: number, { oldestRelease }: Directives): string[] =>
  oldestRelease !== null && oldestRelease > version
    ? [
        `\`oldest-release: ${number(oldestRelease)}\` is beyond this migration: ${number(version)} is the most there can be`,
      ]
    : [];

const strange = (file: string): Problem => ({
  code: 'NAME',
  what: `${file} is not named NNN.do.name.sql or NNN.undo.name.sql`,
  advice: 'rename it, or move what is no migration out of the directory',
});

const doubled = (file: string, other: string): Problem => ({
  code: 'DOUBLED',
  what: `${file} has the number of ${other}`,
  advice: 'two branches took one number: the migration that is in no database yet takes the next free one',
});

/** What is wrong between the files: numbers start at 1 and have no gap, and each way there has a way back. */
function numbering(migrations: readonly Migration[], undos: ReadonlyMap<number, Undo>): Problem[] {
  if (migrations.length === 0) {
    const advice = 'install the package again: its directory `migrations` is missing or empty';
    return [{ code: 'EMPTY', what: 'there are no migrations', advice }];
  }
  const known = new Set(migrations.map(({ version }) => version));
  const gap = migrations.find(({ version }, index) => version !== index + 1);
  return [
    ...(gap === undefined ? [] : [missingBefore(gap)]),
    ...migrations
      .filter(({ undo }) => undo === null)
      .map((migration): Problem => {
        const file = `${number(migration.version)}.undo.${migration.name}.sql`;
        const advice = `write ${file}; where there is nothing to undo, a comment that says why is enough`;
        return { code: 'NO_UNDO', what: `migration ${label(migration)} has no undo`, advice };
      }),
    ...migrations.flatMap((migration) => misnamed(migration, undos.get(migration.version))),
    ...[...undos]
      .filter(([version]) => !known.has(version))
      .map(([version, { script }]): Problem => {
        const advice = 'bring its do file back, or remove it';
        return {
          code: 'NO_DO',
          what: `${basename(script.filename)} undoes migration ${number(version)}, which is not there`,
          advice,
        };
      }),
  ];
}

/** An undo under another name is that of another migration, which took the same number elsewhere. */
function misnamed(migration: Migration, undo: Undo | undefined): Problem[] {
  if (undo === undefined || undo.name === migration.name) return [];
  const what = `migration ${label(migration)} has no undo: ${basename(undo.script.filename)} is that of another`;
  const advice = `bring ${number(migration.version)}.undo.${migration.name}.sql, or give that file this name if it is the way back`;
  return [{ code: 'NO_UNDO', what, advice }];
}

const missingBefore = (migration: Migration): Problem => ({
  code: 'GAP',
  what: `migration ${label(migration)} does not follow the one before it`,
  advice: 'numbers have no gap: bring the missing file back, or give this one the next number if no database has it',
});
