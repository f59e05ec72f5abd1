import type { Node, RangeVar } from 'libpg-query';
import { COLLIDE, DELETE, IN_BATCHES, OVERWRITE } from './advice.ts';
import { as, columnName, conjuncts, each, type Handlers, relationName, shown, strings, within } from './ast.ts';
import type { Scope } from './scope.ts';

/** What changes rows that are there. */
export const ROWS: Handlers<Scope> = {
  InsertStmt: ({ relation, onConflictClause: conflict }, scope) => {
    const table = relationName(relation);
    scope.leaveOpen('data-dependent', 'backward-incompatible');
    if (scope.isNew('relation', table)) return;
    if (conflict === undefined)
      scope.find('data-dependent', `inserts into ${shown(table)}, which may hold the same`, COLLIDE);
    if (conflict?.action === 'ONCONFLICT_UPDATE') {
      overwrite(relation, targets(conflict.targetList), conflict.whereClause, scope);
    }
  },
  UpdateStmt: ({ relation, targetList, whereClause }, scope) => {
    scope.leaveOpen('data-dependent', 'backward-incompatible');
    overwrite(relation, targets(targetList), whereClause, scope);
    const table = relationName(relation);
    if (scope.isNew('relation', table) || conjuncts(whereClause).some(namesRows)) return;
    scope.find('whole-table', `updates ${shown(table)} in one transaction, however many rows it is`, IN_BATCHES);
  },
  DeleteStmt: ({ relation }, scope) => {
    scope.leaveOpen('data-dependent', 'backward-incompatible');
    loseRows('deletes from', relationName(relation), scope);
  },
  MergeStmt: ({ relation, mergeWhenClauses }, scope) => {
    scope.leaveOpen('data-dependent', 'backward-incompatible');
    const table = relationName(relation);
    const does = new Set(each('MergeWhenClause', mergeWhenClauses).map(({ commandType }) => commandType));
    if (does.has('CMD_DELETE')) loseRows('deletes from', table, scope);
    for (const { commandType, targetList } of each('MergeWhenClause', mergeWhenClauses)) {
      if (commandType === 'CMD_UPDATE') overwrite(relation, targets(targetList), undefined, scope);
    }
  },
  TruncateStmt: ({ relations, behavior }, scope) => {
    const empties = behavior === 'DROP_CASCADE' ? 'empties, with all tables that refer to it,' : 'empties';
    for (const relation of each('RangeVar', relations)) loseRows(empties, relationName(relation), scope);
  },
};

const targets = (list: readonly Node[] | undefined): string[] => each('ResTarget', list).map(({ name = '' }) => name);

function loseRows(verb: string, table: string, scope: Scope): void {
  if (!scope.isNew('relation', table)) scope.find('destructive', `${verb} ${shown(table)}`, DELETE);
}

/** Writing a column loses what stood there, unless the column is new or the condition asks for nulls. */
function overwrite(
  relation: RangeVar | undefined,
  columns: readonly string[],
  condition: Node | undefined,
  scope: Scope,
): void {
  const table = relationName(relation);
  if (scope.isNew('relation', table)) return;
  const nulls = new Set(conjuncts(condition).flatMap((part) => nullColumn(part, relation) ?? []));
  const written = columns.filter((column) => !nulls.has(column) && scope.newColumn(table, column) === undefined);
  // A condition on one column tells nothing of another, which may be computed from it; the person who wrote it can tell.
  scope.leaveOpen('destructive');
  if (written.length > 0) scope.find('destructive', `overwrites ${written.join(', ')} of ${shown(table)}`, OVERWRITE);
}

/** The column of the relation that the condition asks to be null; that of another one tells nothing of what is written. */
function nullColumn(condition: Node, relation: RangeVar | undefined): string | undefined {
  const test = as('NullTest', condition);
  if (test?.nulltesttype !== 'IS_NULL') return undefined;
  const of = strings(as('ColumnRef', test.arg)?.fields).at(-2);
  const isOwn = of === undefined || of === (relation?.alias?.aliasname ?? relation?.relname);
  return isOwn ? columnName(test.arg) : undefined;
}

/** Whether the condition holds for the rows of the given ids, and for no others. */
function namesRows(condition: Node): boolean {
  const { kind, name, lexpr, rexpr } = as('A_Expr', condition) ?? {};
  const isEqual = kind === 'AEXPR_IN' || kind === 'AEXPR_OP_ANY' || kind === 'AEXPR_OP';
  const isId = /(^|_)id$/.test(columnName(lexpr) ?? '');
  const isGiven = within('ColumnRef', rexpr).length + within('SelectStmt', rexpr).length === 0;
  return isEqual && strings(name).join() === '=' && isId && isGiven;
}
