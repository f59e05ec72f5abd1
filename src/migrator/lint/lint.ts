import type { CreateFunctionStmt } from 'libpg-query';
import { parseDirectives } from '../directives.ts';
import { type Migration, number, type Script } from '../files.ts';
import { as, each, qualified, strings } from './ast.ts';
import { unrolled } from './blocks.ts';
import { type Classified, judge } from './classify.ts';
import { CHANGE_CLASSES, type ChangeClass, type Finding, RULES } from './finding.ts';
import { ANSWERS, headLine } from './head.ts';
import { loadParser, type Parser, SqlSyntaxError } from './parser.ts';
import { isReleasedException } from './released.ts';
import { checkShape } from './shape.ts';
import { type SquawkFinding, squawk } from './squawk.ts';
import { SQUAWK_RULES } from './squawk-rules.ts';

/** What a migration has to be changed for, or to say why not. */
export interface LintFinding {
  /** Absolute. */
  readonly filename: string;
  /** From 1. */
  readonly line: number;
  /** A class of changes, a rule of squawk's, or one about the file itself. */
  readonly rule: string;
  readonly what: string;
  readonly advice: string;
}

/** Rules whose exception a file may write down itself, beside those of squawk. */
const EXCEPTABLE: ReadonlySet<string> = new Set<Finding['class']>([...CHANGE_CLASSES, ...RULES]);

/**
 * What is to be said against some of the migrations, in the order of their files and lines.
 * @param all those and the ones around them
 * @throws ToolMissing in an installation without development dependencies
 */
export async function lintMigrations(
  chosen: readonly Migration[],
  all: readonly Migration[] = chosen,
): Promise<readonly LintFinding[]> {
  const [parser, squawked] = await Promise.all([loadParser(), squawk(chosen)]);
  const routines = routinesOf(all, parser);
  return chosen.flatMap((migration) => [
    ...inOrder([...lintDo(migration, squawked, parser, routines), ...checkOldest(migration, all)]),
    ...(migration.undo === null ? [] : inOrder(lintUndo(migration.undo, parser, routines))),
  ]);
}

const inOrder = (findings: readonly LintFinding[]): LintFinding[] => findings.toSorted((a, b) => a.line - b.line);

/** The functions that migrations make, by which a call of one is known. */
function routinesOf(migrations: readonly Migration[], parser: Parser): ReadonlySet<string> {
  const made = migrations.flatMap(({ sql }) => {
    try {
      return parser.statements(sql).flatMap(({ node }) => as('CreateFunctionStmt', node) ?? []);
    } catch {
      // What is wrong with it is said where it is linted.
      return [];
    }
  });
  return new Set(made.filter(isVolatile).map(({ funcname }) => qualified(strings(funcname))));
}

const isVolatile = ({ options }: CreateFunctionStmt): boolean =>
  !each('DefElem', options).some(
    ({ defname, arg }) => defname === 'volatility' && as('String', arg)?.sval !== 'volatile',
  );

function lintDo(
  migration: Migration,
  squawked: readonly SquawkFinding[],
  parser: Parser,
  routines: ReadonlySet<string>,
): LintFinding[] {
  const { version, filename } = migration;
  const { problems, classified } = readScript(migration, parser, routines);
  if (classified === null) return problems;
  const own = classified.findings.filter(
    ({ class: of }) =>
      !isAnswered(migration, of) && (of !== 'whole-table' || migration.directives.run === 'transaction'),
  );
  const found = [
    ...own.map((finding) => explain(migration, finding, version)),
    ...squawked.filter((finding) => finding.filename === filename).map(withException),
  ];
  return [
    ...problems,
    ...applyExceptions(migration, found).filter(({ rule }) => !isReleasedException(version, rule)),
    ...CHANGE_CLASSES.flatMap((of) => stale(migration, of, classified)),
  ];
}

/** What may destroy something. */
const ASKED_OF_UNDO: ReadonlySet<string> = new Set<Finding['class']>([
  'destructive',
  'dynamic-sql',
  'calls',
  'unknown',
]);

/** Of the way back only what it destroys is asked: it is no release that others have to live with, and puts old walls back. */
function lintUndo(undo: Script, parser: Parser, routines: ReadonlySet<string>): LintFinding[] {
  const { classified, problems } = readScript(undo, parser, routines);
  if (classified === null) return problems;
  const asked = classified.findings.filter(({ class: of }) => ASKED_OF_UNDO.has(of) && !isAnswered(undo, of));
  const found = asked.map((finding) => explain(undo, finding));
  return [
    ...problems,
    ...applyExceptions(undo, found),
    ...stale(undo, 'destructive', classified),
    ...(['data-dependent', 'backward-incompatible'] as const).flatMap((of) => stale(undo, of, NOT_ASKED)),
  ];
}

const NOT_ASKED: Classified = { findings: [], open: new Set() };

/** What is wrong with a file before it is judged, and what it does; null: PostgreSQL would not take it. */
function readScript(
  script: Script,
  parser: Parser,
  routines: ReadonlySet<string>,
): { problems: LintFinding[]; classified: Classified | null } {
  const { filename, sql, directives } = script;
  const problems = [...checkHead(script), ...checkComments(script)];
  try {
    const statements = parser.statements(sql);
    const shape = checkShape(statements, unrolled(statements, parser), directives).map((problem) => ({
      filename,
      ...problem,
    }));
    return { problems: [...problems, ...shape], classified: judge(statements, parser, routines) };
  } catch (error) {
    if (!(error instanceof SqlSyntaxError)) throw error;
    const advice = 'this is what PostgreSQL 18 itself says of it';
    const syntax = { filename, line: error.line, rule: 'syntax', what: error.message, advice };
    return { problems: [...problems, syntax], classified: null };
  }
}

const checkHead = ({ filename, sql }: Script): LintFinding[] =>
  parseDirectives(sql).problems.map((what) => ({
    filename,
    line: headLine(sql, /^`([a-z-]+):`/.exec(what)?.[1] ?? ''),
    rule: 'head',
    what,
    advice: 'README, "Writing a migration", has the list of what the head of a file may say',
  }));

/** An exception without a reason would get past everything here. */
function checkComments({ filename, sql }: Script): LintFinding[] {
  const at = sql.search(/squawk-(ignore|disable|enable)/);
  if (at === -1) return [];
  const line = sql.slice(0, at).split('\n').length;
  const advice = 'write `-- lint-ignore: rule: reason` in the head of the file instead';
  return [{ filename, line, rule: 'comment', what: "uses squawk's own comments", advice }];
}

const isClass = (of: Finding['class']): of is ChangeClass => (CHANGE_CLASSES as readonly string[]).includes(of);

/** Whoever has said what a call does, by its class, has answered for it. */
const isAnswered = ({ directives }: Script, of: Finding['class']): boolean =>
  of === 'calls'
    ? ANSWERS.destructive.given(directives) || ANSWERS['data-dependent'].given(directives)
    : isClass(of) && ANSWERS[of].given(directives);

/** A finding with the line to add. What undoes a migration has no safer way. */
function explain({ filename }: Script, { class: of, line, what, advice }: Finding, version?: number): LintFinding {
  const answer = `add to the head: ${isClass(of) ? answerTo(of, version) : exceptionOf(of)}`;
  return { filename, line, rule: of, what, advice: version === undefined ? answer : `${advice}; otherwise ${answer}` };
}

/** For what no other line of the head is there. */
const exceptionOf = (rule: string): string => `\`-- lint-ignore: ${rule}: reason\``;

function answerTo(of: ChangeClass, version = 0): string {
  const { key, value, hint } = ANSWERS[of];
  return `\`-- ${key}: ${value(number(version))}\`${hint}`;
}

const withException = ({ rule, advice, ...rest }: SquawkFinding): LintFinding => ({
  ...rest,
  rule,
  advice: `${advice}; otherwise add to the head: ${exceptionOf(rule)}`,
});

/** The findings that the file does not except, and exceptions that except nothing. */
function applyExceptions(script: Script, found: readonly LintFinding[]): LintFinding[] {
  const { filename, sql, directives } = script;
  const excepted = new Set(directives.lintIgnores.map(({ rule }) => rule));
  const idle = directives.lintIgnores
    .filter(({ rule }) => !found.some((finding) => finding.rule === rule))
    .map(({ rule }) => {
      const isKnown = EXCEPTABLE.has(rule) || Object.hasOwn(SQUAWK_RULES, rule);
      const what = isKnown ? `\`lint-ignore: ${rule}\` excepts nothing` : `there is no rule ${rule} to except`;
      return { filename, line: headLine(sql, 'lint-ignore', rule), rule: 'stale', what, advice: 'take the line out' };
    });
  return [...found.filter(({ rule }) => !excepted.has(rule)), ...idle];
}

/** A line of the head that says what the file does not do, as far as that can be told. */
function stale({ filename, sql, directives }: Script, of: ChangeClass, { findings, open }: Classified): LintFinding[] {
  const { key, given } = ANSWERS[of];
  if (!given(directives) || open.has(of) || findings.some((finding) => finding.class === of)) return [];
  const what = `\`${key}:\`, and nothing in the file is ${of}`;
  return [{ filename, line: headLine(sql, key), rule: 'stale', what, advice: 'take the line out' }];
}

/** The oldest release that can serve the schema only ever becomes a newer one. */
function checkOldest(migration: Migration, all: readonly Migration[]): LintFinding[] {
  const { version, filename, sql, directives } = migration;
  const { oldestRelease } = directives;
  if (oldestRelease === null) return [];
  const earlier = all.filter((other) => other.version < version).map((other) => other.directives.oldestRelease ?? 0);
  const least = Math.max(0, ...earlier);
  const line = headLine(sql, 'oldest-release');
  const finding = (what: string, advice: string) => [{ filename, line, rule: 'oldest-release', what, advice }];
  if (oldestRelease > version) {
    const advice = `no release that has this migration would serve its schema: ${number(version)} is the most there can be`;
    return finding(`\`oldest-release: ${number(oldestRelease)}\` is beyond this migration`, advice);
  }
  if (oldestRelease < least) {
    const advice = `an earlier migration says ${number(least)}: no older release comes back, so say at least that`;
    return finding(`\`oldest-release: ${number(oldestRelease)}\` goes back`, advice);
  }
  return [];
}
