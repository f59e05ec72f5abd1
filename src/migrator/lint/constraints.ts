import type { ColumnDef, Constraint, ConstrType } from 'libpg-query';
import { BUILD_APART, EXCLUDE, NEW_RULE, NOT_NULL, REQUIRED_COLUMN, VALIDATE_LATER } from './advice.ts';
import { columnName, each, shown, strings, within } from './ast.ts';
import type { NewColumn, Scope } from './scope.ts';

/** A constraint that rows can break. */
interface Rule {
  readonly called: string;
  readonly advice: string;
  /** Existing rows fit it when all its columns are new and hold this. */
  readonly fits: (constraint: Constraint, contents: readonly (NewColumn | undefined)[]) => boolean;
}

const allEmpty = (contents: readonly (NewColumn | undefined)[]): boolean => contents.every((one) => one === 'empty');
const allNew = (contents: readonly (NewColumn | undefined)[]): boolean => contents.every((one) => one !== undefined);

const RULES: { readonly [K in ConstrType]?: Rule } = {
  CONSTR_CHECK: {
    called: 'check',
    advice: VALIDATE_LATER,
    fits: (constraint, contents) => allNew(contents) && !asksForNull(constraint),
  },
  CONSTR_NOTNULL: {
    called: 'not-null constraint',
    advice: NOT_NULL,
    fits: (_, contents) => contents.every((one) => one === 'filled'),
  },
  CONSTR_FOREIGN: { called: 'foreign key', advice: VALIDATE_LATER, fits: (_, contents) => allEmpty(contents) },
  CONSTR_UNIQUE: {
    called: 'unique constraint',
    advice: BUILD_APART,
    fits: (constraint, contents) => allEmpty(contents) && !constraint.nulls_not_distinct,
  },
  CONSTR_PRIMARY: { called: 'primary key', advice: BUILD_APART, fits: () => false },
  CONSTR_EXCLUSION: {
    called: 'exclusion constraint',
    advice: EXCLUDE,
    fits: (_, contents) => allEmpty(contents),
  },
};

/** A null passes a check, unless the check asks for nulls. */
const asksForNull = ({ raw_expr: expression }: Constraint): boolean =>
  within('NullTest', expression).length + within('CoalesceExpr', expression).length > 0 ||
  within('A_Expr', expression).some(({ kind }) => kind === 'AEXPR_DISTINCT' || kind === 'AEXPR_NOT_DISTINCT');

/** Of a constraint on a table that was there before. */
export function addConstraint(table: string, constraint: Constraint, scope: Scope): void {
  const rule = RULES[constraint.contype ?? 'CONSTR_NULL'];
  if (rule === undefined || !isEnforced(constraint)) return;
  // An index that it takes over has been answered for where it was made.
  if (constraint.contype === 'CONSTR_UNIQUE' && constraint.indexname !== undefined) return;
  const contents = columnsOf(constraint).map((column) => scope.newColumn(table, column));
  if (contents.length > 0 && rule.fits(constraint, contents)) return;
  const named = constraint.conname === undefined ? '' : ` ${constraint.conname}`;
  const what = `adds the ${rule.called}${named} to ${shown(table)}`;
  if (!constraint.skip_validation) scope.find('data-dependent', what, rule.advice);
  scope.find('backward-incompatible', what, NEW_RULE);
}

/** PostgreSQL 18 keeps checks and foreign keys that are `not enforced`. */
const isEnforced = ({ contype, is_enforced: enforced }: Constraint): boolean =>
  enforced === true || !(contype === 'CONSTR_CHECK' || contype === 'CONSTR_FOREIGN');

function columnsOf(constraint: Constraint): string[] {
  if (constraint.contype === 'CONSTR_CHECK') {
    return within('ColumnRef', constraint.raw_expr).flatMap((ColumnRef) => columnName({ ColumnRef }) ?? []);
  }
  const excluded = within('IndexElem', constraint.exclusions).map(({ name = '' }) => name);
  return [...strings(constraint.keys), ...strings(constraint.fk_attrs), ...excluded];
}

/**
 * Of a column that is added to a table that was there before, with what is said in its definition.
 * @param maybe it is only added where it is not there yet
 */
export function addColumn(table: string, column: ColumnDef, maybe: boolean, scope: Scope): void {
  const { colname = '' } = column;
  const constraints = each('Constraint', column.constraints);
  const has = (type: ConstrType): boolean => constraints.some(({ contype }) => contype === type);
  const isDerived = has('CONSTR_GENERATED') || has('CONSTR_IDENTITY');
  const content = has('CONSTR_DEFAULT') ? 'filled' : 'empty';
  if (isDerived) scope.leaveOpen('data-dependent');
  else scope.addColumn(table, colname, content);
  if (content === 'empty' && !isDerived && (has('CONSTR_NOTNULL') || has('CONSTR_PRIMARY'))) {
    const what = `adds the column ${colname} to ${shown(table)}, not null and without a default`;
    scope.find('data-dependent', what, REQUIRED_COLUMN);
    scope.find('backward-incompatible', what, REQUIRED_COLUMN);
  }
  for (const constraint of constraints) {
    if (constraint.contype !== 'CONSTR_NOTNULL') addConstraint(table, onColumn(constraint, colname), scope);
  }
  // What is said in its definition is skipped with it; what comes after may meet a column with rows.
  if (maybe) scope.forgetColumn(table, colname);
}

/** A constraint in a column's definition does not say of which column it is. */
function onColumn(constraint: Constraint, column: string): Constraint {
  const name = [{ String: { sval: column } }];
  return constraint.contype === 'CONSTR_FOREIGN' ? { ...constraint, fk_attrs: name } : { ...constraint, keys: name };
}
