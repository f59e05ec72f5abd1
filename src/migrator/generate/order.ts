import type { Client } from 'pg';
import { MIGRATOR_TABLES } from '../history.ts';
import { type Declared, DeclaredError, lineOfColumn } from './declared.ts';
import { connected, type ScratchDatabase } from './scratch.ts';

/** By table or composite type: the names of its columns in their order. */
type Order = ReadonlyMap<string, readonly string[]>;

/**
 * Makes sure that columns are declared in the order in which migrations can bring them: rows are built and read by it.
 * @throws DeclaredError naming the first one that stands where no migration can put it
 */
export async function refuseOrder(declared: Declared, present: ScratchDatabase, goal: ScratchDatabase): Promise<void> {
  const [was, is] = await Promise.all([present, goal].map(({ url }) => connected(url, readOrder)));
  for (const [relation, columns] of is ?? []) {
    const before = was?.get(renamed(declared, relation, null, [...was.keys()]));
    if (before === undefined) continue;
    const names = columns.map((column) => renamed(declared, relation, column, before));
    const kept = before.filter((name) => names.includes(name));
    const wrong = [...kept, ...names.filter((name) => !kept.includes(name))].findIndex(
      (name, at) => names[at] !== name,
    );
    const column = columns[wrong];
    if (column === undefined) continue;
    const line = lineOfColumn(declared, relation, column);
    const gone = before.filter((name) => !names.includes(name));
    const advice =
      gone.length > 0 ? `${ADVICE}; or, if it is ${gone.join(' or ')} under another name, ${HINT}` : ADVICE;
    throw new DeclaredError(line, `${relation}.${column} stands before what is there already: ${advice}`);
  }
}

const ADVICE = 'a migration can only add to the end, and rows are built in this order: move it to the end';
const HINT = 'write above it `-- renamed-from:` and that name';

/** The present name, as long as a hint's old one is still there. */
function renamed({ renames }: Declared, table: string, column: string | null, present: readonly string[]): string {
  const hint = renames.find((rename) => rename.table === table && rename.column === column);
  return hint !== undefined && present.includes(hint.from) ? hint.from : (column ?? table);
}

async function readOrder(client: Client): Promise<Order> {
  const { rows } = await client.query<{ relation: string; columns: string[] }>(
    `select r.relname as relation, array_agg(a.attname::text order by a.attnum) as columns
     from pg_class r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
     where r.relnamespace = 'jeex'::regnamespace and r.relkind in ('r', 'p', 'c') and r.relname <> all ($1)
     group by r.relname`,
    [MIGRATOR_TABLES],
  );
  return new Map(rows.map(({ relation, columns }) => [relation, columns]));
}
