import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SCHEMA_FILE } from '../files.ts';
import { as, each } from '../lint/ast.ts';
import { lineOfByte, type Parser, SqlSyntaxError, type Statement } from '../lint/parser.ts';
import { connected, type ScratchDatabase } from './scratch.ts';

/** A table or column that goes on under another name. */
export interface Rename {
  readonly table: string;
  /** Null: the table itself. */
  readonly column: string | null;
  readonly from: string;
  /** Of the hint. */
  readonly line: number;
}

/** The declared schema, read. */
export interface Declared {
  /** As it was parsed. */
  readonly text: string;
  readonly statements: readonly Statement[];
  readonly renames: readonly Rename[];
}

/** Something in the declared schema that a person has to put right. */
export class DeclaredError extends Error {
  constructor(line: number, what: string, options?: ErrorOptions) {
    super(`schema.sql:${line}: ${what}`, options);
    this.name = 'DeclaredError';
  }
}

const RENAMED = /^\s*--\s*renamed-from:\s*(\S+)\s*$/;
/** A comment that is meant to be one, maybe; what stands between backquotes is spoken of. */
const LIKE_RENAMED = /(?:--|\/\*).*renamed?[-_ ]?from/i;
/** What makes, alters or grants something, or says in whose name; nothing that reads or writes rows, or ends a transaction. */
const DECLARES =
  /^(?:(?:Create|Alter|Grant).*|CompositeTypeStmt|IndexStmt|ViewStmt|RuleStmt|DefineStmt|CommentStmt|VariableSetStmt)$/;
const NAME = /^[a-z_][a-z0-9_]*$/;

/** Reads the declared schema of a directory. @throws Error where there is none; DeclaredError as `parseDeclared` does */
export function readDeclared(directory: string, parser: Parser): Declared {
  const file = join(directory, SCHEMA_FILE);
  try {
    return parseDeclared(readFileSync(file, 'utf8').replace(/\r\n?/g, '\n'), parser);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`there is no ${file}: bring it back, it declares what the migrations make`, { cause: error });
  }
}

/**
 * Reads a declared schema.
 * @throws DeclaredError where it is no SQL, where something declares nothing or a rename stands above nothing that has a name
 */
export function parseDeclared(text: string, parser: Parser): Declared {
  try {
    const statements = parser.statements(text);
    for (const { node, line } of statements) refuseDeed(Object.keys(node)[0] ?? '', line);
    if (!statements.some(({ node }) => as('CreateStmt', node)))
      throw new DeclaredError(1, 'it declares no table: what the migrations make would all be dropped');
    return { text, statements, renames: readRenames(text, statements) };
  } catch (error) {
    throw error instanceof SqlSyntaxError ? new DeclaredError(error.line, error.message, { cause: error }) : error;
  }
}

function refuseDeed(kind: string, line: number): void {
  if (DECLARES.test(kind)) return;
  throw new DeclaredError(
    line,
    'this declares nothing: what a migration does besides, such as writing rows, is written there by hand',
  );
}

/** By name: each function as a person wrote it. */
export function declaredFunctions({ statements }: Declared): ReadonlyMap<string, readonly string[]> {
  const functions = statements.flatMap(({ node, text }) => {
    const name = each('String', as('CreateFunctionStmt', node)?.funcname).at(-1)?.sval;
    return name === undefined ? [] : [{ name, text }];
  });
  const byName = Map.groupBy(functions, ({ name }) => name);
  return new Map([...byName].map(([name, all]) => [name, all.map(({ text }) => text)]));
}

function readRenames(text: string, statements: readonly Statement[]): Rename[] {
  const lines = text.split('\n');
  if (!lines.some(isLikeRename)) return [];
  const named = namedLines(text, statements);
  return lines.flatMap((line, index) => {
    const from = RENAMED.exec(line)?.[1];
    if (from === undefined && isLikeRename(line)) throw new DeclaredError(index + 1, FORM);
    if (from === undefined) return [];
    const below = index + 1 + lines.slice(index + 1).findIndex((other) => !/^\s*--/.test(other));
    const found = named.get(below + 1);
    if (!NAME.test(from)) throw new DeclaredError(index + 1, `\`${from}\` is no name that this schema could have had`);
    if (!found)
      throw new DeclaredError(index + 1, '`renamed-from` belongs directly above the line of a table or column');
    return [{ ...found, from, line: index + 1 }];
  });
}

const isLikeRename = (line: string): boolean => LIKE_RENAMED.test(line.replace(/`[^`]*`/g, ''));

const FORM = 'a rename is a line of its own, directly above that of the table or column: `-- renamed-from: old_name`';

/** Where a column of a table or of a composite type is declared; the first line where only its name is not found. */
export function lineOfColumn({ text, statements }: Declared, relation: string, column: string): number {
  for (const { node } of statements) {
    const [table, type] = [as('CreateStmt', node), as('CompositeTypeStmt', node)];
    if ((table?.relation ?? type?.typevar)?.relname !== relation) continue;
    const found = each('ColumnDef', table?.tableElts ?? type?.coldeflist).find(({ colname }) => colname === column);
    if (found) return lineAt(text, found.location);
  }
  return 1;
}

const lineAt = (text: string, byte = 0): number => lineOfByte(Buffer.from(text), byte);

/** By line: the table or column whose name stands first there. */
function namedLines(text: string, statements: readonly Statement[]): Map<number, Pick<Rename, 'table' | 'column'>> {
  const named = new Map<number, Pick<Rename, 'table' | 'column'>>();
  for (const { node } of statements) {
    const { relation, tableElts } = as('CreateStmt', node) ?? {};
    const table = relation?.relname;
    if (table === undefined) continue;
    for (const { colname, location } of each('ColumnDef', tableElts).toReversed()) {
      if (colname !== undefined) named.set(lineAt(text, location), { table, column: colname });
    }
    named.set(lineAt(text, relation?.location), { table, column: null });
  }
  return named;
}

/**
 * Makes the declared schema in an empty database, as jeex_owner and whole or not at all.
 * @throws DeclaredError with the line that PostgreSQL refuses
 */
export async function loadDeclared(declared: Declared, database: ScratchDatabase): Promise<void> {
  await connected(database.url, async (client) => {
    await client.query('begin');
    for (const statement of declared.statements) {
      await client.query(statement.text).catch((error: unknown) => {
        throw refused(error, statement);
      });
    }
    await client.query('commit');
  });
}

function refused(error: unknown, { text, line }: Statement): Error {
  const { message, position, detail } = error as Error & { position?: string; detail?: string };
  const within = position ? text.slice(0, Number(position) - 1).split('\n').length - 1 : 0;
  return new DeclaredError(line + within, [message, detail].filter(Boolean).join(': '), { cause: error });
}
