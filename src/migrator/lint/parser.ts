import type { Node } from 'libpg-query';
import { missingTool } from './tools.ts';

export interface Statement {
  readonly node: Node;
  readonly text: string;
  /** Of its first word, from 1. */
  readonly line: number;
}

/** What PostgreSQL's own parser does not take. */
export class SqlSyntaxError extends Error {
  readonly line: number;

  constructor(message: string, line: number) {
    super(message);
    this.name = 'SqlSyntaxError';
    this.line = line;
  }
}

/** What a block of PL/pgSQL runs, as far as its text tells. */
interface Block {
  readonly queries: readonly string[];
  /** What it computes, each as a query. */
  readonly expressions: readonly string[];
  /** It also runs what it puts together itself. */
  readonly dynamic: boolean;
}

export interface Parser {
  /** @throws SqlSyntaxError */
  statements(sql: string): readonly Statement[];
  /** @param text `do …` or `create function …` @throws Error when it is not PL/pgSQL */
  block(text: string): Block;
}

/** PostgreSQL 18's parser. @throws ToolMissing in an installation without development dependencies */
export async function loadParser(): Promise<Parser> {
  const library = await import('libpg-query').catch(missingTool);
  await library.loadModule();
  return {
    statements: (sql) => statements(sql, library.parseSync),
    block: (text) => block(library.parsePlPgSQLSync(text)),
  };
}

type Parse = typeof import('libpg-query')['parseSync'];

function statements(sql: string, parse: Parse): Statement[] {
  if (sql.trim() === '') return [];
  const bytes = Buffer.from(sql);
  return (parsed(sql, parse).stmts ?? []).flatMap(({ stmt, stmt_location: start = 0, stmt_len: length }) => {
    if (stmt === undefined) return [];
    const text = bytes.subarray(start, length ? start + length : bytes.length).toString();
    return [{ node: stmt, text, line: lineOfByte(bytes, start) }];
  });
}

function parsed(sql: string, parse: Parse) {
  try {
    return parse(sql);
  } catch (error) {
    const { cursorPosition = 0 } = (error as { sqlDetails?: { cursorPosition?: number } }).sqlDetails ?? {};
    throw new SqlSyntaxError((error as Error).message, lineAt([...sql].slice(0, cursorPosition).join('')));
  }
}

const lineAt = (before: string): number => before.split('\n').length;

/** The line that a byte of a text is on, from 1: the parser counts in bytes. */
export const lineOfByte = (bytes: Buffer, at: number): number => lineAt(bytes.subarray(0, at).toString());

const DYNAMIC = new Set(['PLpgSQL_stmt_dynexecute', 'PLpgSQL_stmt_dynfors', 'dynquery']);
/** How the parser marks what is a whole statement, and what an expression; all else is an assignment. */
const WHOLE = 0;
const EXPRESSION = 2;
/** The target of an assignment. */
const TARGET = /^[^=]*?:?=/;

function block(tree: unknown): Block {
  if (tree === null || typeof tree !== 'object') return { queries: [], expressions: [], dynamic: false };
  const parts = Object.entries(tree).map(([key, value]): Block => {
    const inner = block(value);
    const { query, parseMode } = key === 'PLpgSQL_expr' ? (value as { query: string; parseMode: number }) : {};
    if (query === undefined) return { ...inner, dynamic: DYNAMIC.has(key) || inner.dynamic };
    if (parseMode === WHOLE) return { queries: [query], expressions: [], dynamic: false };
    const computed = parseMode === EXPRESSION ? query : query.replace(TARGET, '');
    return { queries: [], expressions: [`select ${computed}`], dynamic: false };
  });
  return {
    queries: parts.flatMap(({ queries }) => queries),
    expressions: parts.flatMap(({ expressions }) => expressions),
    dynamic: parts.some(({ dynamic }) => dynamic),
  };
}
