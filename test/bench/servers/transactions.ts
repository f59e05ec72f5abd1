import { createPool, type DatabasePool } from 'slonik';
import { z } from 'zod';
import { TYPES } from '../../../src/db/pg-types.ts';
import type { Database } from '../../../src/db/pool.ts';
import { type Params, type ParamTypes, type Statement, sql } from '../../../src/db/statement.ts';
import { refusalOf } from '../../../src/refusal.ts';

/** How a statement of the service enters its project, with the parameters' numbers. */
const ENTRY = /enter_project\((\$\d+)::uuid, (\$\d+)::uuid, '\w+', false\) as scope/;

/** The same answer by plain joins: the project was entered by the transaction. Whoever is a member may read. */
const scopeOf = (project: string, actor: string): string => `(
  select case when m.role is null and p.visibility <> 'PUBLIC_READ' then 'PROJECT_NOT_FOUND' else 'OK' end as verdict,
    p.id as project_id, m.role
  from projects p
  left join project_members m on m.project_id = p.id and m.user_id = ${actor}::uuid
  where p.id = ${project}::uuid and p.delete_time is null) as scope`;

const texts = new Map<string, string>();

/** A statement's text without the function that enters. */
const plainText = ({ name, text }: { readonly name: string; readonly text: string }): string => {
  const known = texts.get(name);
  if (known !== undefined) return known;
  const plain = text.replace(ENTRY, (_, project: string, actor: string) => scopeOf(project, actor));
  if (plain.includes('enter_project')) throw new Error(`${name} enters its project in a way that is not known here`);
  texts.set(name, plain);
  return plain;
};

const scopeRow = z.object({ set_config: z.string() });
const ENTER = sql.prepared('bench_enter', scopeRow)`select`;
const enter = (project: string) => ({
  ...ENTER,
  sql: "select set_config('jeex.project_id', $1, true)",
  values: [project],
});

/** What the service's handlers read otherwise than Slonik does. */
const OIDS = [
  ['int8', 20],
  ['timestamptz', 1184],
  ['numeric', 1700],
  ['interval', 1186],
] as const;

interface AnyRow {
  readonly verdict?: string;
  readonly detail?: Readonly<Record<string, string>> | null;
  readonly present?: boolean | null;
}

const accept = <R>(statement: Statement<never, R>, rows: readonly AnyRow[]): R[] => {
  const [first] = rows;
  if (first?.verdict !== undefined && first.verdict !== 'OK') throw refusalOf(first.verdict, first.detail ?? undefined);
  return rows.filter(({ present }) => present !== null && present !== false).map((row) => statement.row.parse(row));
};

/**
 * The service's statements in the usual way: BEGIN, the scope, the statement, COMMIT, by Slonik as it comes, but that each
 * statement is prepared and nothing is discarded when a connection goes back.
 */
export const openTransactions = async (url: string, size: number): Promise<Database> => {
  const pool: DatabasePool = await createPool(url, {
    maxPoolSize: size,
    typeParsers: OIDS.map(([name, oid]) => ({ name, parse: TYPES.getTypeParser(oid) })),
    statementTimeout: 'DISABLE_TIMEOUT',
    idleInTransactionSessionTimeout: 'DISABLE_TIMEOUT',
    resetConnection: async () => {},
  });
  const run = async <T extends ParamTypes, R>(statement: Statement<T, R>, params: Params<T>): Promise<R[]> => {
    const token = statement.token(params);
    const { project } = params as { project?: string };
    if (project === undefined) return accept(statement as never, (await pool.any(token)) as readonly AnyRow[]);
    const plain = { ...token, sql: plainText(statement) };
    const rows = await pool.transaction(async (transaction) => {
      await transaction.any(enter(project));
      return await transaction.any(plain);
    });
    return accept(statement as never, rows as readonly AnyRow[]);
  };
  // What the benchmark calls asks for nothing else.
  return { run, end: () => pool.end() } as Partial<Database> as Database;
};
