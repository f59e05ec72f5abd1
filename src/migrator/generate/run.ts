import type { Client } from 'pg';
import { connected, type ScratchDatabase } from './scratch.ts';
import type { Step } from './steps.ts';

/** The modes of locks that keep somebody else out, the strictest first. */
const MODES = [
  'AccessExclusiveLock',
  'ExclusiveLock',
  'ShareRowExclusiveLock',
  'ShareLock',
  'ShareUpdateExclusiveLock',
] as const;
export type Mode = (typeof MODES)[number];

/** What a step does to the tables that were there before it, found out by taking it. */
export interface Effects {
  /** By the strictest mode: the tables that it locks until its end. */
  readonly locked: ReadonlyMap<Mode, readonly string[]>;
  /** The tables of which it writes every row again. */
  readonly rewritten: readonly string[];
}

/** Of what runs beside the use of the tables. */
export const NO_EFFECTS: Effects = { locked: new Map(), rewritten: [] };

/**
 * Takes a step as the migrator would.
 * @param finish what is still to do at its end, found out there; part of the step
 * @returns what it does, and the statements that were still to do
 * @throws Error naming the statement that PostgreSQL refuses
 */
export const takeStep = (
  database: ScratchDatabase,
  run: Step['run'],
  statements: readonly string[],
  finish: (client: Client) => Promise<readonly string[]> = async () => [],
): Promise<{ effects: Effects; rest: readonly string[] }> =>
  connected(database.url, async (client) => {
    if (run === 'concurrently') {
      await runAll(client, statements);
      return { effects: NO_EFFECTS, rest: [] };
    }
    await client.query('begin');
    const before = await readTables(client);
    await runAll(client, statements);
    const rest = await finish(client);
    await runAll(client, rest);
    const effects = { locked: await readLocks(client, before), rewritten: await findRewritten(client, before) };
    await client.query('commit');
    return { effects, rest };
  });

/** Runs statements one after the other. @throws Error naming the one that PostgreSQL refuses */
export async function runAll(client: Client, statements: readonly string[]): Promise<void> {
  for (const sql of statements) {
    await client.query(sql).catch((error: Error) => {
      throw new Error(`PostgreSQL refuses a statement of it: ${error.message}\n\n${sql};\n`, { cause: error });
    });
  }
}

interface Table {
  readonly name: string;
  /** Where its rows are kept; another one after all were written again. */
  readonly file: string;
}

/** By the number of their rows in the catalog. */
type Tables = ReadonlyMap<string, Table>;

async function readTables(client: Client): Promise<Tables> {
  const { rows } = await client.query<Table & { readonly oid: string }>(
    `select oid::text, relname as name, pg_relation_filenode(oid)::text as file from pg_class
     where relnamespace = 'jeex'::regnamespace and relkind in ('r', 'p', 'm')`,
  );
  return new Map(rows.map(({ oid, name, file }) => [oid, { name, file }]));
}

async function findRewritten(client: Client, before: Tables): Promise<string[]> {
  const after = await readTables(client);
  return [...before]
    .filter(([oid, { file }]) => after.has(oid) && after.get(oid)?.file !== file)
    .map(([, { name }]) => name);
}

async function readLocks(client: Client, before: Tables): Promise<Effects['locked']> {
  const { rows } = await client.query<{ oid: string; mode: string }>(
    'select relation::text as oid, mode from pg_locks where pid = pg_backend_pid() and granted and relation = any ($1::oid[])',
    [[...before.keys()]],
  );
  const modes = [...before].map(([oid, { name }]) => {
    const held = new Set(rows.filter((row) => row.oid === oid).map(({ mode }) => mode));
    return { name, mode: MODES.find((mode) => held.has(mode)) };
  });
  const locked = MODES.map(
    (mode) =>
      [
        mode,
        modes
          .filter((one) => one.mode === mode)
          .map(({ name }) => name)
          .sort(),
      ] as const,
  );
  return new Map(locked.filter(([, names]) => names.length > 0));
}
