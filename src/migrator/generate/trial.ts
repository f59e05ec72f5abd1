import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { number, readMigrations } from '../files.ts';
import { judge } from '../lint/classify.ts';
import { type LintFinding, lintMigrations } from '../lint/lint.ts';
import type { Parser } from '../lint/parser.ts';
import type { Draft } from './build.ts';
import { doHeader, undoHeader } from './header.ts';

/** A file of a migration. */
export interface GeneratedFile {
  /** Its name in the directory. */
  readonly file: string;
  readonly text: string;
}

/** New migrations behind the present ones, in a directory of their own that goes when it is disposed of. */
export interface Trial extends Disposable {
  readonly directory: string;
  readonly files: readonly GeneratedFile[];
  /** Their numbers. */
  readonly versions: readonly number[];
  /** What the lint says against them. */
  readonly findings: readonly string[];
}

/** Gives drafts their numbers and heads. @param from the directory of the present migrations */
export async function tryOut(drafts: readonly Draft[], name: string, from: string, parser: Parser): Promise<Trial> {
  const directory = mkdtempSync(join(tmpdir(), 'jeex-generate-'));
  const dispose = () => rmSync(directory, { recursive: true });
  try {
    cpSync(from, directory, { recursive: true });
    const newest = readMigrations(from).migrations.length;
    const versions = drafts.map((_, index) => newest + 1 + index);
    const write = (rules: ReadonlyMap<number, readonly string[]>) =>
      drafts.flatMap((draft, index) => {
        const version = newest + 1 + index;
        const files = filesOf(version, name, draft, rules.get(version) ?? [], parser);
        for (const { file, text } of files) writeFileSync(join(directory, file), text);
        return files;
      });
    write(new Map());
    const rules = Map.groupBy(await lintNew(directory, newest), ({ version }) => version);
    const files = write(new Map([...rules].map(([version, found]) => [version, found.map(({ rule }) => rule)])));
    return {
      directory,
      files,
      versions,
      findings: (await lintNew(directory, newest)).map(describe),
      [Symbol.dispose]: dispose,
    };
  } catch (error) {
    dispose();
    throw error;
  }
}

async function lintNew(directory: string, newest: number): Promise<(LintFinding & { readonly version: number })[]> {
  const { migrations } = readMigrations(directory);
  const fresh = migrations.filter(({ version }) => version > newest);
  const findings = await lintMigrations(fresh, migrations);
  return findings.map((finding) => {
    const version = fresh.find(({ filename, undo }) => [filename, undo?.filename].includes(finding.filename))?.version;
    return { ...finding, version: version ?? newest };
  });
}

const describe = ({ filename, line, rule, what, advice }: LintFinding): string =>
  `${basename(filename)}:${line}: ${rule}: ${what}: ${advice}`;

function filesOf(
  version: number,
  name: string,
  draft: Draft,
  rules: readonly string[],
  parser: Parser,
): GeneratedFile[] {
  const body = draft.statements.map((sql) => `${sql};\n`).join('\n');
  const undo = draft.undo.map((sql) => `${sql};\n`).join('\n');
  const findings = (sql: string) => judge(parser.statements(sql), parser).findings;
  return [
    {
      file: `${number(version)}.do.${name}.sql`,
      text: `${doHeader({ version, name, draft, findings: findings(body), rules })}\n\n${body}`,
    },
    {
      file: `${number(version)}.undo.${name}.sql`,
      text: `${undoHeader({ version, name, draft, findings: findings(undo) })}\n\n${undo}`,
    },
  ];
}
