import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { Client } from 'pg';
import { MigrationFailed } from '../../src/migrator/errors.ts';
import type { Migrated } from '../../src/migrator/migrate.ts';

/** Two small migrations. */
export const PAIR = {
  '001.do.a.sql': 'create table a (id int);\ninsert into a values (1);\n',
  '001.undo.a.sql': 'drop table a;\n',
  '002.do.b.sql': 'create table b (id int);\n',
  '002.undo.b.sql': 'drop table b;\n',
};

/** A directory with these migrations, gone after the tests; its own name would mean something in a glob pattern. */
export function directoryOf(files: Readonly<Record<string, string>>): string {
  const directory = mkdtempSync(join(tmpdir(), 'jeex [a]{b,c}*!-'));
  after(() => rmSync(directory, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
}

/** Asks one question on a connection of its own. */
export async function ask<T extends object>(url: string, text: string, values: unknown[] = []): Promise<T[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<T>(text, values)).rows;
  } finally {
    await client.end();
  }
}

/** The tables of the schema. */
export const tables = async (url: string): Promise<string[]> => {
  const rows = await ask<{ t: string }>(url, `select tablename t from pg_tables where schemaname = 'jeex' order by 1`);
  return rows.map((row) => row.t);
};

/** The versions of the steps that were taken, in order. */
export const versionsOf = ({ steps }: Migrated): number[] => steps.map(({ version }) => version);

/** Where the database is afterwards, and what was done. */
export async function expectSteps(
  running: Promise<Migrated>,
  version: number | null,
  steps: readonly number[],
): Promise<void> {
  const migrated = await running;
  assert.equal(migrated.version, version);
  assert.deepEqual(versionsOf(migrated), steps);
}

/** What the migrator keeps of migrations that are begun and not done. */
export const progress = (url: string) => ask(url, 'select * from jeex.schemaprogress');

/** Whether an error is a migration's, and says this. */
export const failed = (message: RegExp) => (error: unknown) =>
  error instanceof MigrationFailed && message.test(error.message);
