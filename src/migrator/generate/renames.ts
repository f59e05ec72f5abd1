import type { Action, FactBase, StableId } from '@supabase/pg-delta';
import { escapeIdentifier } from 'pg';
import { type Declared, DeclaredError, type Rename } from './declared.ts';
import { type Ends, type Part, renameIndex, type Statement, withoutName } from './steps.ts';

/** Gives a table or column another name, and its old one back. */
export interface Renaming {
  readonly sql: string;
  readonly undo: string;
  /** What has to be free for the way back: the old name, under the tables' new ones. */
  readonly old: StableId;
}

/**
 * The declared renames that the migrations have not made yet: tables first, so that columns are found under the new name.
 * @throws DeclaredError where the declared schema names something that never was, or is there under both names
 */
export function openRenames({ renames }: Declared, migrated: FactBase): Renaming[] {
  const tables = renames.filter(({ column }) => column === null);
  const columns = renames.filter(({ column }) => column !== null);
  const open = tables.filter((rename) => isOpen(rename, table(rename.from), table(rename.table), migrated));
  const before = (name: string) => open.find((rename) => rename.table === name)?.from ?? name;
  return [
    ...open.map(({ table: to, from }) => ({
      sql: renameTable(from, to),
      undo: renameTable(to, from),
      old: table(from),
    })),
    ...columns.flatMap((rename) => {
      const { table: name, column: to, from } = rename;
      if (to === null || !isOpen(rename, column(before(name), from), column(before(name), to), migrated)) return [];
      const old = column(name, from);
      return [{ sql: renameColumn(name, from, to), undo: renameColumn(name, to, from), old }];
    }),
  ];
}

const BOTH =
  'take the line out if the rename was made; names that change places are exchanged by a migration written by hand';

/** A line that has done its work may stay: what it names is there under the new name. */
function isOpen({ from, line }: Rename, old: StableId, now: StableId, migrated: FactBase): boolean {
  const [wasThere, isThere] = [migrated.has(old), migrated.has(now)];
  if (wasThere && isThere)
    throw new DeclaredError(line, `the migrations have both \`${from}\` and its new name: ${BOTH}`);
  if (!wasThere && !isThere) throw new DeclaredError(line, `no migration makes \`${from}\`, which could be renamed`);
  return wasThere;
}

const table = (name: string): StableId => ({ kind: 'table', schema: 'jeex', name });

const column = (of: string, name: string): StableId => ({ kind: 'column', schema: 'jeex', table: of, name });

const renameTable = (from: string, to: string): string =>
  `ALTER TABLE jeex.${escapeIdentifier(from)} RENAME TO ${escapeIdentifier(to)}`;

const renameColumn = (of: string, from: string, to: string): string =>
  `ALTER TABLE jeex.${escapeIdentifier(of)} RENAME COLUMN ${escapeIdentifier(from)} TO ${escapeIdentifier(to)}`;

/** An index that only has another name, which is free: building it again would be for nothing. @returns how to rename each */
export function renamedIndexes(actions: readonly Action[], from: FactBase, to: FactBase): string[] {
  const definition = (id: StableId, base: FactBase) => withoutName(String(base.get(id)?.payload.def));
  const ids = (of: 'destroys' | 'produces') =>
    actions.flatMap((action) => action[of]).filter(({ kind }) => kind === 'index');
  const made = new Map(ids('produces').map((id) => [definition(id, to), id]));
  return ids('destroys').flatMap((id) => {
    const now = made.get(definition(id, from));
    if (now === undefined || !('name' in now && 'name' in id) || from.has(now)) return [];
    return [renameIndex(id.name, now.name)];
  });
}

/**
 * Columns that go from a table and come to it with the same type, without a word on whether they are one.
 * @param statements of the step that says so
 */
export function unhinted(actions: readonly Action[], statements: readonly Statement[], { from, to }: Ends): string[] {
  const gone = actions.flatMap(({ destroys }) => destroys).filter(isColumn);
  const come = statements.flatMap(({ action }) => action?.produces ?? []).filter(isColumn);
  return come.flatMap((now) =>
    gone
      .filter(({ table, name }) => table === now.table && name !== now.name)
      .filter((old) => from.get(old)?.payload.type === to.get(now)?.payload.type)
      .map(
        ({ name }) =>
          `If ${now.table}.${now.name} is ${name} under another name, it loses what that holds: write ` +
          `\`-- renamed-from: ${name}\` above it in schema.sql, and generate this again.`,
      ),
  );
}

const isColumn = (id: StableId): id is Part => id.kind === 'column';
