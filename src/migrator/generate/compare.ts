import type { Action, Diagnostic, FactBase, Plan, StableId } from '@supabase/pg-delta';
import { Pool } from 'pg';
import { MIGRATOR_TABLES } from '../history.ts';
import { replaceFunctions } from './functions.ts';
import type { Libraries } from './libraries.ts';
import { alterPolicies } from './policies.ts';
import { connected, type ScratchDatabase } from './scratch.ts';

/** A schema as the comparison sees it. */
export interface Facts {
  readonly base: FactBase;
  /** What is there and cannot be compared, in the comparison's words. */
  readonly unmodelled: readonly string[];
}

/** Edges that lead nowhere are about objects of PostgreSQL itself, and say nothing about the schema. */
const isTelling = ({ code, severity }: Diagnostic): boolean => severity !== 'info' && code !== 'dangling_edge';

/** Reads a database's schema as jeex_owner, whose pool is closed again. */
export async function readFacts(database: ScratchDatabase, { delta }: Libraries): Promise<Facts> {
  const pool = new Pool({ connectionString: database.url, max: 1 });
  pool.on('error', () => {});
  try {
    const { factBase, diagnostics } = await delta.extract(pool);
    return { base: factBase, unmodelled: diagnostics.filter(isTelling).map(({ message }) => message) };
  } finally {
    await pool.end();
  }
}

/** Takes the migrator's own tables away, which no migration makes and nobody declares. */
export const withoutMigratorTables = (database: ScratchDatabase): Promise<void> =>
  connected(database.url, async (client) => {
    await client.query(`drop table if exists ${MIGRATOR_TABLES.join(', ')}`);
  });

/** What holds no rows keeps what it does under another name, so that a new name needs no new index and no new check. */
const RENAMED_BY_CONTENT = new Set(['constraint', 'index']);

/** What leads from one schema to the other, in an order that PostgreSQL takes. @throws Error where there is no such order */
export function planBetween(from: FactBase, to: FactBase, { delta, parser }: Libraries): readonly Action[] {
  const found = delta.plan(from, to, { renames: 'prompt', acceptRenames: [] });
  const acceptRenames = harmlessRenames(found);
  const { actions } = acceptRenames.length === 0 ? found : delta.plan(from, to, { renames: 'prompt', acceptRenames });
  return replaceFunctions(alterPolicies(actions, from, to), from, to, parser);
}

const harmlessRenames = ({ renameCandidates }: Plan): { from: StableId; to: StableId }[] =>
  renameCandidates
    .filter(({ kind, status }) => status === 'unambiguous' && RENAMED_BY_CONTENT.has(kind))
    .map(({ from, to }) => ({ from, to }));
