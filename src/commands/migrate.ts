import { readFileSync } from 'node:fs';
import { down, migrate, type Status, status } from '../db/migrator.ts';
import { provideDatabase } from '../db/provide.ts';
import { untilInterrupted } from './interrupt.ts';
import { print, tell } from './output.ts';
import { ownerConfig, schemaConfig } from './owner.ts';

const log = { info: tell };

/** Applies what is missing, or prints its SQL. @throws Error when a migration cannot run */
export async function migrateUp(options: { dryRun: boolean }): Promise<void> {
  await withDatabase('write', async (url) => {
    if (options.dryRun) return printPending(await status(url));
    const { version, applied } = await migrate(url, { mode: 'auto', log });
    print(applied.length > 0 ? `applied ${applied.join(', ')}; now at ${version}` : `up to date at ${version}`);
  });
}

/** Undoes the migrations above a version. @throws Error when the database is below it */
export async function migrateDown(options: { to: number }): Promise<void> {
  await withDatabase('write', async (url) => {
    const { version, applied } = await down(url, options.to, { log });
    print(applied.length > 0 ? `undone ${applied.join(', ')}; now at ${version}` : `already at ${version}`);
  });
}

/** Shows the migrations; the exit code is 1 when one is missing or something is wrong, so that scripts can ask. */
export async function migrateStatus(options: { json: boolean }): Promise<void> {
  await withDatabase('read', async (url) => {
    const found = await status(url);
    print(options.json ? JSON.stringify({ ...found, pending: found.pending.map(withoutFile) }) : describe(found));
    if (found.pending.length + found.problems.length > 0) process.exitCode = 1;
  });
}

const withoutFile = ({ version, name }: { version: number; name: string }) => ({ version, name });

function printPending({ pending, problems }: Status): void {
  if (problems.length > 0) throw new Error(`the migrations cannot run:\n${problems.join('\n')}`);
  for (const { version, name, filename } of pending) {
    print(`-- ${version} ${name}\n${readFileSync(filename, 'utf8')}`);
  }
  if (pending.length === 0) print('-- up to date');
}

function describe({ version, latest, applied, pending, problems }: Status): string {
  return [
    `database at ${version}, this release at ${latest}`,
    ...applied.map((row) => `  ${row.version} ${row.name}  applied ${row.runAt.toISOString()}`),
    ...pending.map((row) => `  ${row.version} ${row.name}  missing`),
    ...problems.map((problem) => `problem: ${problem}`),
  ].join('\n');
}

/**
 * Runs the work on the configured database or on the embedded one, which it starts and stops. Looking is also possible while
 * a service uses the embedded one.
 */
async function withDatabase(use: 'read' | 'write', work: (url: string) => Promise<void>): Promise<void> {
  const config = use === 'write' ? ownerConfig() : schemaConfig();
  await untilInterrupted(async (signal) => {
    const database = await provideDatabase(config, { share: use === 'read', log, signal });
    try {
      await work(database.migrationUrl);
    } finally {
      await database.stop();
    }
  });
}
