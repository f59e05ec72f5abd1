import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Client } from 'pg';
import Postgrator from 'postgrator';
import type { MigrateMode } from '../config.ts';
import { waitForLock } from './advisory.ts';
import { openClient } from './connection.ts';

type Migration = Postgrator.Migration;

export interface MigratorOptions {
  readonly log?: { info(message: string): void };
  /** Instead of the package's own `migrations`, for tests. */
  readonly directory?: string;
}

interface AppliedMigration {
  readonly version: number;
  readonly name: string;
  readonly runAt: Date;
}

export interface Status {
  /** The newest migration the database has; 0 before the first. */
  readonly version: number;
  /** The newest migration this release has. */
  readonly latest: number;
  readonly applied: readonly AppliedMigration[];
  /** `filename` is absolute. */
  readonly pending: readonly { readonly version: number; readonly name: string; readonly filename: string }[];
  /** Why nothing can be applied; empty when all is well. */
  readonly problems: readonly string[];
}

export interface Migrated {
  readonly version: number;
  /** The versions that were applied or undone now, in that order. */
  readonly applied: readonly number[];
}

const MIGRATIONS = fileURLToPath(new URL('../../migrations', import.meta.url));
const TABLE = 'jeex.schemaversion';

/** Whole in one step, which Postgrator's own is not: another service may be looking at it without the lock. */
const MAKE_TABLE = `create schema if not exists jeex;
create table if not exists ${TABLE} (version bigint primary key, name text, md5 text, run_at timestamptz)`;

/** `MIGRATE=check` works with the app's own connection where the owner's is kept elsewhere. */
const LET_APP_CHECK = `do $$ begin
  if exists (select from pg_roles where rolname = 'jeex_app') then grant select on ${TABLE} to jeex_app; end if;
end $$`;

/**
 * Brings the schema up to date (`auto`), insists that it is (`check`), or does nothing (`off`).
 * @param url the owner, direct: the lock lives in the session, which a transaction pooler would share
 * @throws Error listing everything the preflight found, or naming the migration that failed and was rolled back
 */
export async function migrate(url: string, options: MigratorOptions & { mode: MigrateMode }): Promise<Migrated> {
  const { mode, log } = options;
  if (mode === 'off') return { version: 0, applied: [] };
  return await connected(url, options, async (client, engine) => {
    const before = await inspect(client, engine);
    refuse(before.problems);
    if (before.pending.length === 0) return { version: before.version, applied: [] };
    if (mode === 'check') throw new Error(behind(before));
    await enter(client, log);
    refuse((await inspect(client, engine)).problems);
    await client.query(MAKE_TABLE);
    const done = await engine.migrate();
    await client.query(LET_APP_CHECK);
    if (done.length > 0) log?.info(`the schema is at version ${before.latest} (${done.length} migrations applied)`);
    return { version: before.latest, applied: done.map((migration) => migration.version) };
  });
}

/** What the database has and what is missing; changes nothing. @throws Error when the database cannot be reached */
export async function status(url: string, options: MigratorOptions = {}): Promise<Status> {
  return await connected(url, options, inspect);
}

/** The newest migration this release has: the schema it needs. */
export const latestVersion = (files: readonly MigrationFile[] = migrationFiles()): number =>
  Math.max(0, ...files.map(({ version }) => version));

/** A migration as this release has it. */
export interface MigrationFile {
  readonly version: number;
  readonly name: string;
  /** As the database keeps it of what was applied: MD5 of the script with line feeds. */
  readonly checksum: string;
}

/** The migrations this release has, in order. */
export const migrationFiles = (): MigrationFile[] =>
  readdirSync(MIGRATIONS)
    .sort()
    .flatMap((file) => {
      const [, version, name = ''] = /^(\d+)\.do\.(.+)\.sql$/.exec(file) ?? [];
      if (version === undefined) return [];
      const script = readFileSync(resolve(MIGRATIONS, file), 'utf8').replace(/\r\n?/g, '\n');
      return [{ version: Number(version), name, checksum: createHash('md5').update(script).digest('hex') }];
    });

/**
 * Undoes the migrations above `to`, newest first. Data in what they made is lost.
 * @throws Error as `migrate` does, and when `to` is not a version the database has passed
 */
export async function down(url: string, to: number, options: MigratorOptions = {}): Promise<Migrated> {
  return await connected(url, options, async (client, engine) => {
    await enter(client, options.log);
    const { version, problems } = await inspect(client, engine);
    refuse(problems);
    if (to > version) throw new Error(`the database is at version ${version}, which is below ${to}`);
    if (to === version) return { version, applied: [] };
    const undone = await engine.migrate(String(to));
    return { version: to, applied: undone.map((migration) => migration.version) };
  });
}

/** Postgrator, with the script and its version row in one transaction: a crash leaves both or neither. */
class Engine extends Postgrator {
  readonly #client: Client;

  constructor(client: Client, directory: string) {
    super({
      driver: 'pg',
      database: client.database as string,
      schemaTable: TABLE,
      // The directory's own name may hold characters that mean something in a pattern.
      migrationPattern: `${directory.replaceAll('\\', '/').replace(/[?*()[\]{}!]/g, '\\$&')}/*`,
      newline: 'LF',
      execQuery: (query) => client.query(query),
    });
    this.#client = client;
  }

  override async runMigrations(migrations: Migration[] = []): Promise<Migration[]> {
    for (const migration of migrations) {
      await this.#client.query('begin');
      try {
        await this.#run(migration);
        await this.#client.query('commit');
      } catch (error) {
        await this.#client.query('rollback').catch(() => {});
        throw new Error(`migration ${label(migration)} failed and was rolled back: ${explain(error, migration)}`, {
          cause: error,
        });
      }
    }
    return migrations;
  }

  async #run(migration: Migration): Promise<void> {
    const { version, name, md5, action } = migration;
    const transaction = await this.#transactionId();
    await this.#client.query(migration.getSql());
    if ((await this.#transactionId()) !== transaction) throw new Error('it must leave the transaction alone');
    if (action === 'do') {
      const row = [version, name, md5];
      await this.#client.query(`insert into ${TABLE} (version, name, md5, run_at) values ($1, $2, $3, now())`, row);
    } else {
      await this.#client.query(`delete from ${TABLE} where version = $1`, [version]);
    }
  }

  async #transactionId(): Promise<string | undefined> {
    const result = await this.#client.query<{ id: string }>('select pg_current_xact_id()::text as id');
    return result.rows[0]?.id;
  }
}

async function connected<T>(
  url: string,
  options: MigratorOptions,
  work: (client: Client, engine: Engine) => Promise<T>,
): Promise<T> {
  const client = await openClient(url, 'jeex-persistence migrate');
  try {
    return await work(client, new Engine(client, resolve(options.directory ?? MIGRATIONS)));
  } finally {
    await client.end();
  }
}

/** One migrator at a time; a table in use is not waited for, since every call behind that wait would wait too. */
async function enter(client: Client, log: MigratorOptions['log']): Promise<void> {
  await waitForLock(client, 'migrate', log);
  await client.query(`set search_path = jeex; set lock_timeout = '5s'; set statement_timeout = 0`);
}

async function inspect(client: Client, engine: Engine): Promise<Status> {
  const files = await engine.getMigrations();
  const rows = await readApplied(client);
  const applied = rows.map(({ version, name, run_at }) => ({ version: Number(version), name, runAt: run_at }));
  const version = applied.at(-1)?.version ?? 0;
  const scripts = files.filter(({ action }) => action === 'do').sort((a, b) => a.version - b.version);
  return {
    version,
    latest: scripts.at(-1)?.version ?? 0,
    applied,
    pending: scripts
      .filter((script) => script.version > version)
      .map((script) => ({ version: script.version, name: script.name, filename: resolve(script.filename) })),
    problems: [...fileProblems(files, scripts), ...appliedProblems(rows, scripts)],
  };
}

interface VersionRow {
  readonly version: string;
  readonly name: string;
  readonly md5: string;
  readonly run_at: Date;
}

async function readApplied(client: Client): Promise<VersionRow[]> {
  const table = await client.query<{ found: boolean }>('select to_regclass($1) is not null as found', [TABLE]);
  if (!table.rows[0]?.found) return [];
  const columns = 'version::text, name, md5, run_at';
  const result = await client.query<VersionRow>(
    `select ${columns} from ${TABLE} where version > 0 order by ${TABLE}.version`,
  );
  return result.rows;
}

/** What is wrong with the files alone. */
function fileProblems(files: readonly Migration[], scripts: readonly Migration[]): string[] {
  if (scripts.length === 0) return ['there are no migrations: is the package complete?'];
  const undone = new Set(files.filter(({ action }) => action === 'undo').map(({ version }) => version));
  const known = new Set(scripts.map(({ version }) => version));
  return [
    ...files
      .filter(({ filename }) => !/(^|[\\/])\d{3,}\.(do|undo)\.[a-z0-9_-]+\.sql$/.test(filename))
      .map(({ filename }) => `${filename} is not named NNN.do.name.sql or NNN.undo.name.sql`),
    ...scripts
      .filter(({ version }, index) => version !== index + 1)
      .slice(0, 1)
      .map((script) => `migration ${label(script)} does not follow the one before it: numbers have no gap`),
    ...scripts.filter(({ version }) => !undone.has(version)).map((script) => `migration ${label(script)} has no undo`),
    ...[...undone].filter((version) => !known.has(version)).map((version) => `undo ${version} has no migration`),
  ];
}

/** What is wrong between the database and the files. */
function appliedProblems(rows: readonly VersionRow[], scripts: readonly Migration[]): string[] {
  const latest = scripts.at(-1)?.version ?? 0;
  const newest = Number(rows.at(-1)?.version ?? 0);
  if (newest > latest) {
    return [
      `the database is at version ${newest}, and this release knows up to ${latest}: start the release that migrated it, ` +
        `or let that one migrate down to ${latest}`,
    ];
  }
  const byVersion = new Map(scripts.map((script) => [script.version, script]));
  const problems = rows.flatMap((row, index) => {
    const script = byVersion.get(Number(row.version));
    if (Number(row.version) !== index + 1) return [`the database has ${row.version} without the one before it`];
    if (!script) return [`migration ${row.version} ${row.name} was applied, and its file is missing`];
    return script.md5 === row.md5 ? [] : [`migration ${label(script)} was changed after it had been applied`];
  });
  return problems;
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new Error(`the migrations cannot run:\n${problems.map((p) => `  ${p}`).join('\n')}`);
}

const behind = ({ version, latest, pending }: Status): string =>
  `the database is at version ${version} and this release needs ${latest} (missing: ` +
  `${pending.map(label).join(', ')}): run \`jeex-persistence migrate up\``;

const label = ({ version, name }: { version: number; name: string }): string =>
  `${String(version).padStart(3, '0')} ${name}`;

/** PostgreSQL counts characters; a person looks for a line. */
function explain(error: unknown, migration: Migration): string {
  if (!(error instanceof Error)) return String(error);
  const { position, code } = error as Error & { position?: string; code?: string };
  const line = position ? `, line ${migration.getSql().slice(0, Number(position)).split('\n').length}` : '';
  return `${error.message}${code ? ` (SQLSTATE ${code}${line})` : ''}`;
}
