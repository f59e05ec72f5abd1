import { basename, dirname, relative, resolve } from 'node:path';
import { EXIT } from '../exit.ts';
import type { Problem } from '../migrator/errors.ts';
import { MIGRATIONS, type Migration, readMigrations } from '../migrator/files.ts';
import { type LintFinding, lintMigrations } from '../migrator/lint/lint.ts';
import { ToolMissing } from '../migrator/lint/tools.ts';
import { print, tell } from './output.ts';

export interface MigrateLintOptions {
  readonly json?: boolean | undefined;
}

/** Files that were named and are no migrations. */
class WrongUse extends Error {}

interface Linted {
  readonly migrations: readonly Migration[];
  readonly problems: readonly Problem[];
  readonly findings: readonly LintFinding[];
}

/**
 * Lints migrations: those of the files that are named, else all of this release. The exit code is 3 when there is something
 * to be said against one, and 2 when a file is no migration or the linter's tools are not installed.
 * @param files do or undo files; each stands for both of its migration
 */
export async function migrateLint(files: readonly string[], { json = false }: MigrateLintOptions): Promise<void> {
  try {
    const linted = await lint(files);
    print(json ? JSON.stringify(asJson(linted)) : describe(linted));
    if (count(linted) > 0) process.exitCode = EXIT.refused;
  } catch (error) {
    if (!(error instanceof ToolMissing || error instanceof WrongUse)) throw error;
    tell(`jeex-persistence: ${error.message}`);
    process.exitCode = EXIT.wrongUse;
  }
}

async function lint(files: readonly string[]): Promise<Linted> {
  if (files.length === 0) {
    const { migrations, problems } = readMigrations();
    // What is wrong with a head is a finding on its line.
    const others = problems.filter(({ code }) => code !== 'DIRECTIVE');
    return { migrations, problems: others, findings: await lintMigrations(migrations) };
  }
  const sets = Map.groupBy(new Set(files.map((file) => resolve(file))), dirname);
  const linted = await Promise.all([...sets].map(([directory, named]) => lintNamed(directory, named)));
  return {
    migrations: linted.flatMap(({ migrations }) => migrations),
    problems: [],
    findings: linted.flatMap(({ findings }) => findings),
  };
}

async function lintNamed(directory: string, named: readonly string[]): Promise<Linted> {
  const { migrations: all } = readDirectory(directory);
  const isIn = (file: string, { filename, undo }: Migration): boolean => file === filename || file === undo?.filename;
  const stranger = named.find((file) => !all.some((migration) => isIn(file, migration)));
  if (stranger !== undefined) throw new WrongUse(`${stranger} is no migration: expected NNN.do.name.sql, or its undo`);
  const migrations = all.filter((migration) => named.some((file) => isIn(file, migration)));
  return { migrations, problems: [], findings: await lintMigrations(migrations, all) };
}

function readDirectory(directory: string) {
  try {
    return readMigrations(directory);
  } catch (error) {
    throw new WrongUse(`cannot read ${directory}: ${(error as Error).message}`);
  }
}

const count = ({ problems, findings }: Linted): number => problems.length + findings.length;

const asJson = (linted: Linted) => ({
  ok: count(linted) === 0,
  migrations: linted.migrations.length,
  problems: linted.problems,
  findings: linted.findings,
});

function describe(linted: Linted): string {
  const { migrations, problems, findings } = linted;
  const number = `${migrations.length} ${migrations.length === 1 ? 'migration' : 'migrations'}`;
  if (count(linted) === 0) return `${number}: nothing to be said against`;
  return [
    ...problems.map(({ code, what, advice }) => `${place(MIGRATIONS)}  ${code}\n    ${what}\n    ${advice}`),
    ...findings.map(
      ({ filename, line, rule, what, advice }) => `${place(filename)}:${line}  ${rule}\n    ${what}\n    ${advice}`,
    ),
    `${number}: ${count(linted)} to be answered`,
  ].join('\n');
}

/** A path that can be clicked where the command was run. */
const place = (path: string): string => relative('', path) || basename(path);
