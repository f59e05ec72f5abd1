import { type Client, DatabaseError } from 'pg';
import type { Check, Finding } from './check.ts';
import { inTransaction, type TenantTable, tenantTables } from './database.ts';
import { forgottenWhere } from './forgotten.ts';
import type { Pair, World } from './world.ts';

/** PostgreSQL's code for "row-level security, or a missing right, forbids it". */
const FORBIDDEN = '42501';

/** Works on one table; answers what is wrong. */
type Probe = (client: Client, table: TenantTable, pair: Pair) => Promise<readonly string[]>;

const enterScope = (client: Client, { facts, viewer }: World): Promise<unknown> =>
  client.query(`select from enter_project($1, $2, 'member')`, [facts.project, viewer]);

/** The projects whose rows a bare select shows; `limit` keeps a wall that is down from showing everything. */
const visible = async (client: Client, { name, key }: TenantTable): Promise<readonly string[]> => {
  const { rows } = await client.query<{ project: string }>(
    `select distinct project from (select ${key}::text as project from jeex.${name} limit 100000) as seen`,
  );
  return rows.map(({ project }) => project);
};

/** What a write does inside a transaction of its own that is taken back: rows changed, or PostgreSQL's code. */
const effect = (
  client: Client,
  scope: World | null,
  text: string,
  values: readonly unknown[] = [],
): Promise<number | string> =>
  inTransaction(client, async () => {
    if (scope !== null) await enterScope(client, scope);
    const done = client.query(text, [...values]);
    return await done.then(
      ({ rowCount }) => rowCount ?? 0,
      (error) => (error instanceof DatabaseError ? (error.code ?? '') : Promise.reject(error)),
    );
  });

const sampleRow = (client: Client, { name }: TenantTable, world: World): Promise<Record<string, unknown> | undefined> =>
  inTransaction(client, async () => {
    await enterScope(client, world);
    return (await client.query(`select to_jsonb(t) as row from ${name} t limit 1`)).rows[0]?.row;
  });

const insertText = ({ name }: TenantTable) =>
  `insert into ${name} select * from jsonb_populate_record(null::${name}, $1)`;

const noScope: Probe = async (client, table, { a }) => {
  const { name, key } = table;
  // Outside any transaction, as a statement that was sent without its opening would be.
  if ((await visible(client, table)).length > 0) return [`${name} shows rows`];
  const row = await sampleRow(client, table, a);
  const inserted = await effect(client, null, insertText(table), [row]);
  const faults = inserted === FORBIDDEN ? [] : [`${name}: an insert is not forbidden but ends with ${inserted}`];
  for (const change of [`update ${name} set ${key} = ${key}`, `delete from ${name}`]) {
    const changed = await effect(client, null, change);
    if (changed !== 0 && changed !== FORBIDDEN) faults.push(`${change}: ${changed}`);
  }
  return faults;
};

const foreignScope: Probe = async (client, table, { a, b }) => {
  const { name, key } = table;
  const [mine, theirs] = [a.facts.project, b.facts.project];
  const own = await sampleRow(client, table, b);
  if (!own || !(await sampleRow(client, table, a))) {
    return [`${name} holds no row of the scratch projects, so that nothing is shown: newWorld has to fill it`];
  }
  const seen = await inTransaction(client, async () => {
    await enterScope(client, a);
    return visible(client, table);
  });
  const faults = seen.join() === mine ? [] : [`${name} shows rows of ${seen.length} projects, not of the entered one`];
  const forbidden: readonly [string, string, unknown][] = [
    ['an insert of a foreign row', insertText(table), own],
    ['moving a row to another project', `update ${name} set ${key} = $1 where ${key} <> $1`, theirs],
  ];
  for (const [what, text, value] of forbidden) {
    const done = await effect(client, a, text, [value]);
    if (done !== FORBIDDEN) faults.push(`${name}: ${what} is not forbidden but ends with ${done}`);
  }
  const removed = await effect(client, a, `delete from ${name} where ${key} = $1`, [theirs]);
  if (removed !== 0 && removed !== FORBIDDEN) faults.push(`${name}: a delete of foreign rows ends with ${removed}`);
  return faults;
};

const failed = (client: Client): Promise<string> =>
  client.query('select 1 / 0').then(
    () => 'nothing failed',
    ({ code }) => String(code),
  );

/** A connection of the pool that failed inside a project is used again by the next call. */
const afterError: Probe = async (client, table, { a, b }) => {
  const faults: string[] = [];
  await inTransaction(client, async () => {
    await enterScope(client, b);
    await failed(client);
  });
  if ((await visible(client, table)).length > 0)
    faults.push(`${table.name} shows rows after a transaction that failed`);
  // A statement by itself, which fails once it has entered.
  await client
    .query(`select 1 / 0 from jeex.enter_project($1, $2, 'member') as e where e.verdict is not null`, [
      b.facts.project,
      b.viewer,
    ])
    .catch(() => {});
  if ((await visible(client, table)).length > 0) faults.push(`${table.name} shows rows after a statement that failed`);
  const next = await inTransaction(client, async () => {
    await enterScope(client, a);
    return visible(client, table);
  });
  if (next.join() !== a.facts.project) faults.push(`${table.name} shows the next caller rows of another project`);
  return faults;
};

/** Every tenant table, reached directly in SQL as the service's role: what a mistake in a statement would be up against. */
export const tableChecks = (client: Client, pair: () => Promise<Pair>): readonly Check[] => {
  const check = (name: string, probe: Probe): Check => ({
    group: 'tables',
    name,
    run: async (): Promise<Finding> => {
      const tables = await tenantTables(client);
      const worlds = await pair();
      const faults: string[] = [];
      for (const table of tables) faults.push(...(await probe(client, table, worlds)));
      return { seen: `${tables.length} tables`, faults };
    },
  });
  return [
    check('without a scope a table shows no row and takes none', noScope),
    check('with a scope a table shows that project alone, and takes no row of another', foreignScope),
    check(
      'a statement that forgot its where sees its own project: single, batched, after another project',
      forgottenWhere,
    ),
    check('after an error the connection is in no project', afterError),
  ];
};
