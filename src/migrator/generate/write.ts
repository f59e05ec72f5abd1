import { type Declared, declaredFunctions } from './declared.ts';
import { Formatter } from './format.ts';
import type { Libraries } from './libraries.ts';
import { connected, type ScratchDatabase } from './scratch.ts';
import type { Statement } from './steps.ts';

const FUNCTION = /^create\s+(or\s+replace\s+)?(?=function|procedure)/i;

/** How a statement stands in a migration, without its semicolon. */
export type Wording = (statement: Statement) => string;

export interface Writer {
  /** A function is worded as it is declared, byte for byte, where only one has its name. */
  readonly declared: Wording;
  readonly plain: Wording;
}

/** @param database any with the server's own names in it */
export async function makeWriter(declared: Declared, database: ScratchDatabase, libraries: Libraries): Promise<Writer> {
  const formatter = new Formatter(libraries.postgres, await builtInNames(database));
  const functions = declaredFunctions(declared);
  const plain: Wording = (statement) => {
    const text = formatter.format(statement.sql);
    return madeBy(statement) ? text.replace(FUNCTION, 'create ') : text;
  };
  return {
    plain,
    declared: (statement) => {
      const { sql, action } = statement;
      const made = madeBy(statement);
      const id = made ?? action?.consumes.find(({ kind }) => kind === 'function' || kind === 'procedure');
      const [text, ...others] =
        (id !== undefined && 'name' in id && FUNCTION.test(sql) && functions.get(id.name)) || [];
      if (text === undefined || others.length > 0) return plain(statement);
      return text.replace(FUNCTION, made ? 'create ' : 'create or replace ');
    },
  };
}

/** The function that a statement makes, which is not there before. */
const madeBy = ({ action }: Statement) =>
  action?.produces.find(({ kind }) => kind === 'function' || kind === 'procedure');

/** Names that mean something of PostgreSQL's own before they mean something of this schema. */
const builtInNames = (database: ScratchDatabase): Promise<ReadonlySet<string>> =>
  connected(database.url, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `select relname as name from pg_class where relnamespace = 'pg_catalog'::regnamespace
       union select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace
       union select typname from pg_type where typnamespace = 'pg_catalog'::regnamespace`,
    );
    return new Set(rows.map(({ name }) => name));
  });
