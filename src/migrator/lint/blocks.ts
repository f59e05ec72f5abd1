import type { CreateFunctionStmt, DoStmt, Node } from 'libpg-query';
import { as, each, strings } from './ast.ts';
import type { Parser, Statement } from './parser.ts';

/** What a body of code runs. */
export interface Code {
  readonly statements: readonly Statement[];
  /** What it computes, as queries: they call functions, and change nothing themselves. */
  readonly expressions: readonly Statement[];
  /** It also runs what it puts together itself. */
  readonly dynamic: boolean;
}

/** What a DO block runs. Null: it is not in PL/pgSQL, or not in a PL/pgSQL that the parser knows. */
export const readBlock = ({ args }: DoStmt, text: string, parser: Parser): Code | null =>
  languageOf(args, 'plpgsql') === 'plpgsql' ? readPlpgsql(text, parser) : null;

/** What a function runs when it is called. Null: nobody can tell. @param text of the statement that makes it */
export function readFunction(
  { options, sql_body: body }: CreateFunctionStmt,
  text: string,
  parser: Parser,
): Code | null {
  if (body !== undefined) return codeOf(atomic(body));
  const language = languageOf(options, 'sql');
  if (language === 'plpgsql') return readPlpgsql(text, parser);
  const source = strings(as('List', optionOf(options, 'as'))?.items)[0];
  return language === 'sql' && source !== undefined ? codeOf(parser.statements(source)) : null;
}

/** Statements and, behind each DO block, what it runs, on the block's line. */
export const unrolled = (statements: readonly Statement[], parser: Parser): readonly Statement[] =>
  statements.flatMap((statement) => {
    const { node, text, line } = statement;
    const block = as('DoStmt', node);
    const code = block && readBlock(block, text, parser);
    const inner = [...(code?.statements ?? []), ...(code?.expressions ?? [])];
    return [statement, ...inner.map((one) => ({ ...one, line }))];
  });

const codeOf = (statements: readonly Statement[]): Code => ({ statements, expressions: [], dynamic: false });

/** @throws SqlSyntaxError in a statement of it */
function readPlpgsql(text: string, parser: Parser): Code | null {
  const block = attempt(() => parser.block(text));
  if (block === null) return null;
  const { queries, expressions, dynamic } = block;
  return { statements: parseAll(queries, parser), expressions: parseAll(expressions, parser), dynamic };
}

const parseAll = (sqls: readonly string[], parser: Parser): Statement[] =>
  sqls.flatMap((sql) => parser.statements(sql));

function attempt<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}

/** The statements of a body that was parsed with the function: those of `begin atomic`, or what it returns. */
function atomic(body: Node): Statement[] {
  const lists = as('List', body)?.items ?? [body];
  return lists.flatMap((list) => as('List', list)?.items ?? [list]).map((node) => ({ node, text: '', line: 1 }));
}

const languageOf = (options: readonly Node[] | undefined, otherwise: string): string =>
  as('String', optionOf(options, 'language'))?.sval ?? otherwise;

const optionOf = (options: readonly Node[] | undefined, name: string): Node | undefined =>
  each('DefElem', options).find(({ defname }) => defname === name)?.arg;
