import { Client } from 'pg';
import { connectionString } from '../../db/connection.ts';

/** A table with rows of projects that the service's role may touch. */
export interface TenantTable {
  readonly name: string;
  /** The column with the project: `id` of projects, `project_id` elsewhere. */
  readonly key: 'id' | 'project_id';
}

const APPLICATION = 'jeex-persistence isolation-audit';

/** A connection with the database URL of the service, in the role the service has. */
export const connectAsApp = async (url: string): Promise<Client> => {
  const client = new Client({ connectionString: await connectionString(url), application_name: APPLICATION });
  // A connection that ends fails the check that uses it.
  client.on('error', () => {});
  await client.connect();
  return client;
};

/** Runs work in a transaction that finds the schema and is taken back, whatever it did. */
export const inTransaction = async <T>(client: Client, work: () => Promise<T>): Promise<T> => {
  await client.query('begin');
  try {
    await client.query(
      `set local search_path = jeex; set local statement_timeout = '10s'; set local lock_timeout = '3s'`,
    );
    return await work();
  } finally {
    await client.query('rollback');
  }
};

/** The column `name` of what a query finds. */
export const names = async (client: Client, text: string, values: readonly unknown[] = []): Promise<string[]> =>
  (await client.query<{ name: string }>(text, [...values])).rows.map(({ name }) => name);

/**
 * The tenant tables, from the catalog, so that a new one is covered the day it is added: those with a project in each row that
 * the connection's role has any right to. Those it has no right to are the definer functions' alone.
 */
export const tenantTables = async (client: Client): Promise<readonly TenantTable[]> => {
  const { rows } = await client.query<TenantTable>(`
    select c.relname as name, case when c.relname = 'projects' then 'id' else 'project_id' end as key
    from pg_class c
    where c.relnamespace = 'jeex'::regnamespace and c.relkind in ('r', 'p')
      and (c.relname = 'projects' or exists (
        select from pg_attribute a where a.attrelid = c.oid and a.attname = 'project_id' and not a.attisdropped))
      and (has_table_privilege(c.oid, 'select, insert, update, delete, truncate')
        or has_any_column_privilege(c.oid, 'select, insert, update'))
    order by c.relname`);
  if (rows.length === 0) throw new Error('this role may touch no tenant table: is DATABASE_URL that of the service?');
  return rows;
};
