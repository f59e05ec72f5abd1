import type { Action, FactBase, StableId } from '@supabase/pg-delta';
import { escapeIdentifier } from 'pg';
import { type Declared, DeclaredError, type Rename } from './declared.ts';

/** Gives a table or column another name, and its old one back. */
export interface Renaming {
  readonly sql: string;
  readonly undo: string;
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
    ...open.map(({ table: to, from }) => ({ sql: renameTable(from, to), undo: renameTable(to, from) })),
    ...columns.flatMap((rename) => {
      const { table: name, column: to, from } = rename;
      if (to === null || !isOpen(rename, column(before(name), from), column(before(name), to), migrated)) return [];
      return [{ sql: renameColumn(name, from, to), undo: renameColumn(name, to, from) }];
    }),
  ];
}

/** A line that has done its work may stay: what it names is there under the new name. */
function isOpen({ from, line }: Rename, old: StableId, now: StableId, migrated: FactBase): boolean {
  const [wasThere, isThere] = [migrated.has(old), migrated.has(now)];
  if (wasThere && isThere) throw new DeclaredError(line, `the migrations have both \`${from}\` and its new name`);
  if (!wasThere && !isThere) throw new DeclaredError(line, `no migration makes \`${from}\`, which could be renamed`);
  return wasThere;
}

const table = (name: string): StableId => ({ kind: 'table', schema: 'jeex', name });

const column = (of: string, name: string): StableId => ({ kind: 'column', schema: 'jeex', table: of, name });

const renameTable = (from: string, to: string): string =>
  `ALTER TABLE jeex.${escapeIdentifier(from)} RENAME TO ${escapeIdentifier(to)}`;

const renameColumn = (of: string, from: string, to: string): string =>
  `ALTER TABLE jeex.${escapeIdentifier(of)} RENAME COLUMN ${escapeIdentifier(from)} TO ${escapeIdentifier(to)}`;

const INDEX = /^(CREATE (?:UNIQUE )?INDEX) (?:"[^"]+"|\S+) (ON .*)$/s;

/** An index that only has another name: building it again would be for nothing. @returns how to rename each */
export function renamedIndexes(actions: readonly Action[], from: FactBase, to: FactBase): string[] {
  const definition = (id: StableId, base: FactBase) =>
    INDEX.exec(String(base.get(id)?.payload.def))
      ?.slice(1)
      .join(' ');
  const ids = (of: 'destroys' | 'produces') =>
    actions.flatMap((action) => action[of]).filter(({ kind }) => kind === 'index');
  const made = new Map(ids('produces').map((id) => [definition(id, to), id]));
  return ids('destroys').flatMap((id) => {
    const now = made.get(definition(id, from));
    if (now === undefined || !('name' in now && 'name' in id) || now.name === id.name) return [];
    return [`ALTER INDEX jeex.${escapeIdentifier(id.name)} RENAME TO ${escapeIdentifier(now.name)}`];
  });
}
