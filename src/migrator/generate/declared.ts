import { as, each } from '../lint/ast.ts';
import { type Parser, SqlSyntaxError, type Statement } from '../lint/parser.ts';
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
const NAME = /^[a-z_][a-z0-9_]*$/;

/** Reads a declared schema. @throws DeclaredError where it is no SQL, or a rename stands above nothing that has a name */
export function parseDeclared(text: string, parser: Parser): Declared {
  try {
    const statements = parser.statements(text);
    return { statements, renames: readRenames(text, statements) };
  } catch (error) {
    throw error instanceof SqlSyntaxError ? new DeclaredError(error.line, error.message, { cause: error }) : error;
  }
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
  if (!lines.some((line) => RENAMED.test(line))) return [];
  const named = namedLines(text, statements);
  return lines.flatMap((line, index) => {
    const from = RENAMED.exec(line)?.[1];
    if (from === undefined) return [];
    const below = index + 1 + lines.slice(index + 1).findIndex((other) => !/^\s*--/.test(other));
    const found = named.get(below + 1);
    if (!NAME.test(from)) throw new DeclaredError(index + 1, `\`${from}\` is no name that this schema could have had`);
    if (!found)
      throw new DeclaredError(index + 1, '`renamed-from` belongs directly above the line of a table or column');
    return [{ ...found, from, line: index + 1 }];
  });
}

/** By line: the table or column whose name stands first there. */
function namedLines(text: string, statements: readonly Statement[]): Map<number, Pick<Rename, 'table' | 'column'>> {
  const bytes = Buffer.from(text);
  const lineAt = (byte = 0) => bytes.subarray(0, byte).toString().split('\n').length;
  const named = new Map<number, Pick<Rename, 'table' | 'column'>>();
  for (const { node } of statements) {
    const { relation, tableElts } = as('CreateStmt', node) ?? {};
    const table = relation?.relname;
    if (table === undefined) continue;
    for (const { colname, location } of each('ColumnDef', tableElts).toReversed()) {
      if (colname !== undefined) named.set(lineAt(location), { table, column: colname });
    }
    named.set(lineAt(relation?.location), { table, column: null });
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
