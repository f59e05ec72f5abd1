import type { CreatePolicyStmt, DoStmt, FuncCall, Node, WithClause } from 'libpg-query';
import { CALL, SPELL_OUT } from './advice.ts';
import { ALTERS } from './alter-table.ts';
import { as, each, type Handlers, qualified, relationName, shown, strings, within } from './ast.ts';
import { type Code, readBlock, readFunction } from './blocks.ts';
import { CREATES } from './creates.ts';
import { DROPS } from './drops.ts';
import type { ChangeClass, Finding } from './finding.ts';
import { mayWrite } from './known.ts';
import type { Parser, Statement } from './parser.ts';
import { RIGHTS_CHANGES } from './rights.ts';
import { ROWS } from './rows.ts';
import { Scope } from './scope.ts';
import { isRefused } from './shape.ts';
import { POLICIES } from './walls.ts';

const harmless = (): void => {};
const open = (_: unknown, scope: Scope): void => scope.leaveOpen();

/** A kind of statement that is not here may do anything, and is a finding. */
const HANDLERS: Handlers<Scope> = {
  ...CREATES,
  ...ALTERS,
  ...DROPS,
  ...ROWS,
  ...RIGHTS_CHANGES,
  ...POLICIES,
  SelectStmt: open,
  ReturnStmt: open,
  CallStmt: open,
  ReindexStmt: open,
  RefreshMatViewStmt: open,
  DefineStmt: open,
  // What they run is judged by itself.
  ExplainStmt: harmless,
  PrepareStmt: harmless,
  CommentStmt: harmless,
  ConstraintsSetStmt: harmless,
  CreateStatsStmt: harmless,
  AlterStatsStmt: harmless,
  DeallocateStmt: harmless,
  VacuumStmt: open,
  VariableSetStmt: harmless,
  VariableShowStmt: harmless,
};

/** What runs the functions that it calls; a definition runs them later, for each row. */
const RUNNING: ReadonlySet<string> = new Set([
  'SelectStmt',
  'ReturnStmt',
  'CallStmt',
  'InsertStmt',
  'UpdateStmt',
  'DeleteStmt',
  'MergeStmt',
]);

export interface Classified {
  /** In the order of the statements. */
  readonly findings: readonly Finding[];
  /** The classes that something in it may belong to without the text telling: what a called function does, for one. */
  readonly open: ReadonlySet<ChangeClass>;
}

/** What is read to judge a file. */
interface Reading {
  readonly scope: Scope;
  readonly parser: Parser;
  /** The functions of the file whose bodies were judged. */
  readonly called: Set<string>;
  /** Functions that earlier files make. */
  readonly routines: ReadonlySet<string>;
}

/**
 * What a migration does to stored data, to older releases and to the walls between projects, by the parse tree of PostgreSQL
 * 18. What the file itself has made is new, and nothing on it is a finding.
 * @param routines functions that earlier files make, beside those of this release
 */
export function judge(
  statements: readonly Statement[],
  parser: Parser,
  routines: ReadonlySet<string> = new Set(),
): Classified {
  const made = statements.flatMap(({ node }) => as('CreatePolicyStmt', node) ?? []);
  const scope = new Scope(new Set(made.map(policyName)));
  const reading = { scope, parser, called: new Set<string>(), routines };
  for (const { node, text, line } of statements) {
    scope.line = line;
    scope.text = text;
    judgeOne(node, text, reading);
  }
  return scope;
}

const policyName = ({ table, policy_name: name }: CreatePolicyStmt): string => `${relationName(table)}.${name}`;

function judgeOne(node: Node, text: string, reading: Reading): void {
  const block = as('DoStmt', node);
  if (block !== undefined) judgeBlock(block, text, reading);
  else judgeStatement(node, text, reading);
}

function judgeBlock(block: DoStmt, text: string, reading: Reading): void {
  const { scope, parser } = reading;
  const what = 'runs statements in a DO block that are put together at run time';
  judgeCode(readBlock(block, text, parser), reading, () => scope.find('dynamic-sql', what, SPELL_OUT));
}

function judgeStatement(node: Node, text: string, reading: Reading): void {
  const { scope } = reading;
  const [[kind, body]] = Object.entries(node) as [[string, { withClause?: WithClause }]];
  const inner = innerOf(node);
  if (inner !== undefined) judgeOne(inner, text, reading);
  for (const { ctequery } of each('CommonTableExpr', body.withClause?.ctes)) {
    if (ctequery !== undefined && as('SelectStmt', ctequery) === undefined) judgeOne(ctequery, text, reading);
  }
  if (RUNNING.has(kind)) judgeCalls(node, reading);
  const handle = (HANDLERS as Readonly<Record<string, (body: unknown, scope: Scope) => void>>)[kind];
  if (handle !== undefined) handle(body, scope);
  else if (isRefused(kind)) scope.leaveOpen();
  else scope.findUnknown();
}

/** The statement that runs within another; `explain` runs it when it is to measure it. */
function innerOf(node: Node): Node | undefined {
  const explained = as('ExplainStmt', node);
  const measures = each('DefElem', explained?.options).some(({ defname }) => defname === 'analyze');
  if (explained !== undefined) return measures ? explained.query : undefined;
  return (as('PrepareStmt', node) ?? as('CreateTableAsStmt', node))?.query;
}

/**
 * The statements of a body of code are judged as if they stood in the file.
 * @param notAll says that there is more to it than can be read
 */
function judgeCode(code: Code | null, reading: Reading, notAll: () => void): void {
  reading.scope.leaveOpen();
  for (const { node, text } of code?.statements ?? []) judgeOne(node, text, reading);
  for (const { node } of code?.expressions ?? []) judgeCalls(node, reading);
  if (code === null || code.dynamic) notAll();
}

/** A function that the file makes is judged by its body, once; one that was there may do whatever it may write. */
function judgeCalls(node: Node, reading: Reading): void {
  const { scope, parser, called, routines } = reading;
  for (const { funcname } of callsOf(node)) {
    const parts = strings(funcname);
    const name = qualified(parts);
    const find = () => scope.find('calls', `calls ${shown(name)}, which may change or delete rows`, CALL);
    const body = scope.bodies.get(name);
    if (body === undefined && (routines.has(name) || mayWrite(parts))) find();
    if (body === undefined || called.has(name)) continue;
    called.add(name);
    judgeCode(readFunction(body.made, body.text, parser), reading, find);
  }
}

function callsOf(node: Node): FuncCall[] {
  const procedure = as('CallStmt', node)?.funccall;
  return [...(procedure === undefined ? [] : [procedure]), ...within('FuncCall', node)];
}
