import type { CreatePolicyStmt, DoStmt, Node, WithClause } from 'libpg-query';
import { SPELL_OUT } from './advice.ts';
import { ALTERS } from './alter-table.ts';
import { as, each, type Handlers, relationName } from './ast.ts';
import { CREATES } from './creates.ts';
import { DROPS } from './drops.ts';
import type { ChangeClass, Finding } from './finding.ts';
import { loadParser, type Parser, type Statement } from './parser.ts';
import { RIGHTS_CHANGES } from './rights.ts';
import { ROWS } from './rows.ts';
import { Scope } from './scope.ts';

const harmless = (): void => {};

/** A kind of statement that is not here may belong to any class. */
const HANDLERS: Handlers<Scope> = {
  ...CREATES,
  ...ALTERS,
  ...DROPS,
  ...ROWS,
  ...RIGHTS_CHANGES,
  CommentStmt: harmless,
  VariableSetStmt: harmless,
  LockStmt: harmless,
};

export interface Classified {
  /** In the order of the statements. */
  readonly findings: readonly Finding[];
  /** The classes that something in it may belong to without the text telling: what a called function does, for one. */
  readonly open: ReadonlySet<ChangeClass>;
}

/**
 * What a migration does to stored data and to older releases, by the parse tree of PostgreSQL 18. What the file itself has
 * made is new, and nothing on it is a finding.
 * @throws SqlSyntaxError where PostgreSQL would not take it
 * @throws ToolMissing in an installation without development dependencies
 */
export async function classify(sql: string): Promise<readonly Finding[]> {
  const parser = await loadParser();
  return judge(parser.statements(sql), parser).findings;
}

/** As `classify`, of what was parsed already. */
export function judge(statements: readonly Statement[], parser: Parser): Classified {
  const made = statements.flatMap(({ node }) => as('CreatePolicyStmt', node) ?? []);
  const scope = new Scope(new Set(made.map(policyName)));
  for (const { node, text, line } of statements) {
    scope.line = line;
    const block = as('DoStmt', node);
    if (block === undefined) judgeOne(node, scope);
    else judgeBlock(block, text, scope, parser);
  }
  return scope;
}

const policyName = ({ table, policy_name: name }: CreatePolicyStmt): string => `${relationName(table)}.${name}`;

function judgeOne(node: Node, scope: Scope): void {
  const [[kind, body]] = Object.entries(node) as [[string, { withClause?: WithClause }]];
  for (const { ctequery } of each('CommonTableExpr', body.withClause?.ctes)) {
    if (ctequery !== undefined && as('SelectStmt', ctequery) === undefined) judgeOne(ctequery, scope);
  }
  const handle = (HANDLERS as Readonly<Record<string, (body: unknown, scope: Scope) => void>>)[kind];
  if (handle === undefined) scope.leaveOpen();
  else handle(body, scope);
}

/** The statements of a DO block are judged as if they stood in the file; what its expressions call, nobody knows. */
function judgeBlock(block: DoStmt, text: string, scope: Scope, parser: Parser): void {
  scope.leaveOpen();
  const read = readBlock(block, text, parser);
  for (const query of read?.queries ?? []) {
    for (const { node } of parser.statements(query)) judgeOne(node, scope);
  }
  if (read !== null && !read.dynamic) return;
  scope.find('dynamic-sql', 'runs statements in a DO block that are put together at run time', SPELL_OUT);
}

/** Null: it is not in PL/pgSQL, or not in a PL/pgSQL that the parser knows. */
function readBlock({ args }: DoStmt, text: string, parser: Parser) {
  const language = each('DefElem', args).find(({ defname }) => defname === 'language');
  if (language !== undefined && as('String', language.arg)?.sval !== 'plpgsql') return null;
  try {
    return parser.block(text);
  } catch {
    return null;
  }
}
