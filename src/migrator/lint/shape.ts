import type { Node, VariableSetStmt } from 'libpg-query';
import type { BatchKey, Directives } from '../directives.ts';
import {
  as,
  type Body,
  columnName,
  conjuncts,
  each,
  type Kind,
  qualified,
  relationName,
  strings,
  within,
} from './ast.ts';
import { start } from './finding.ts';
import type { Statement } from './parser.ts';

/** What a migration may not do at all, since the migrator around it does it or could not do it. */
export interface ShapeProblem {
  readonly rule: 'transaction-control' | 'session' | 'privileged' | 'maintenance' | 'outside-transaction' | 'run';
  readonly line: number;
  readonly what: string;
  readonly advice: string;
}

/**
 * Looks at how the statements fit the way the file says that it runs.
 * @param unrolled the statements with those of DO blocks
 */
export function checkShape(
  statements: readonly Statement[],
  unrolled: readonly Statement[],
  directives: Directives,
): ShapeProblem[] {
  return [
    ...unrolled.flatMap((statement) => checkStatement(statement, directives)),
    ...checkRole(unrolled),
    ...checkRun(statements, directives),
  ];
}

const PRIVILEGED: ReadonlySet<string> = new Set<Kind>([
  'AlterDatabaseRefreshCollStmt',
  'AlterDatabaseSetStmt',
  'AlterDatabaseStmt',
  'AlterEventTrigStmt',
  'AlterExtensionContentsStmt',
  'AlterExtensionStmt',
  'AlterFdwStmt',
  'AlterForeignServerStmt',
  'AlterRoleSetStmt',
  'AlterRoleStmt',
  'AlterSubscriptionStmt',
  'AlterSystemStmt',
  'AlterTableSpaceOptionsStmt',
  'AlterUserMappingStmt',
  'CheckPointStmt',
  'CopyStmt',
  'CreateAmStmt',
  'CreateEventTrigStmt',
  'CreateExtensionStmt',
  'CreateFdwStmt',
  'CreateForeignServerStmt',
  'CreateOpClassStmt',
  'CreateOpFamilyStmt',
  'CreatePLangStmt',
  'CreateRoleStmt',
  'CreateSubscriptionStmt',
  'CreateTableSpaceStmt',
  'CreateUserMappingStmt',
  'CreatedbStmt',
  'DropOwnedStmt',
  'DropRoleStmt',
  'DropSubscriptionStmt',
  'DropTableSpaceStmt',
  'DropUserMappingStmt',
  'DropdbStmt',
  'GrantRoleStmt',
  'LoadStmt',
  'ReassignOwnedStmt',
]);
const PRIVILEGED_DROPS: ReadonlySet<string | undefined> = new Set<Body<'DropStmt'>['removeType']>([
  'OBJECT_ACCESS_METHOD',
  'OBJECT_EVENT_TRIGGER',
  'OBJECT_EXTENSION',
  'OBJECT_FDW',
  'OBJECT_FOREIGN_SERVER',
  'OBJECT_LANGUAGE',
]);

/** Whether statements of that kind are refused as such, whatever they say. */
export const isRefused = (kind: string): boolean =>
  PRIVILEGED.has(kind) || ['TransactionStmt', 'ClusterStmt', 'DiscardStmt'].includes(kind);

function checkStatement({ node, line, text }: Statement, { run }: Directives): ShapeProblem[] {
  const [kind = ''] = Object.keys(node);
  const what = `\`${start(text)}\``;
  if (kind === 'TransactionStmt') {
    return [{ rule: 'transaction-control', line, what, advice: 'leave it out: the migrator begins and commits' }];
  }
  if (PRIVILEGED.has(kind) || PRIVILEGED_DROPS.has(as('DropStmt', node)?.removeType)) {
    const advice =
      'a migration runs as jeex_owner, which is no superuser: roles and what else needs one belong to `bootstrap`';
    return [{ rule: 'privileged', line, what, advice }];
  }
  if (as('VacuumStmt', node)?.is_vacuumcmd || kind === 'ClusterStmt') {
    const advice = 'it changes no schema: run it by hand, when nobody minds the lock';
    return [{ rule: 'maintenance', line, what, advice }];
  }
  const forbidden =
    kind === 'DiscardStmt' ? 'leave it out' : settingsOf(node).flatMap((one) => checkSetting(one) ?? [])[0];
  if (forbidden !== undefined) return [{ rule: 'session', line, what, advice: forbidden }];
  if (run === 'transaction' && runsOutside(node)) {
    const advice =
      'PostgreSQL runs it outside transactions only: give it a file of its own with `-- run: concurrently`';
    return [{ rule: 'outside-transaction', line, what, advice }];
  }
  return [];
}

/** What a statement sets, also by a function. */
function settingsOf(node: Node): VariableSetStmt[] {
  const setting = as('VariableSetStmt', node);
  if (setting !== undefined || 'CreateFunctionStmt' in node) return setting === undefined ? [] : [setting];
  return within('FuncCall', node)
    .filter(({ funcname }) => strings(funcname).at(-1) === 'set_config')
    .map(({ args: [name, , isLocal] = [] }) => ({
      kind: 'VAR_SET_VALUE',
      name: as('A_Const', name)?.sval?.sval ?? '',
      is_local: as('A_Const', isLocal)?.boolval?.boolval === true,
    }));
}

/** Why a setting may not be changed; undefined: it may. */
function checkSetting({ kind, name: written = '', is_local: isLocal = false }: VariableSetStmt): string | undefined {
  const name = written.toLowerCase();
  if (name === '' && kind === 'VAR_SET_VALUE') return 'say which setting: it cannot be told before it runs';
  if (name === 'search_path') return 'leave it out: the migrator sets it, and names without a schema are those of jeex';
  if (name === 'row_security') return 'leave it out: row-level security is what keeps the projects apart';
  if (name === 'lock_timeout') return 'leave it out: the migrator sets it, so that nobody queues behind a migration';
  if (name === 'session_authorization' || kind === 'VAR_RESET_ALL' || kind === 'VAR_SET_MULTI') return 'leave it out';
  if (isLocal || kind === 'VAR_RESET') return undefined;
  return 'write `set local`, which ends with the transaction: the next migration runs in the same session';
}

const runsOutside = (node: Node): boolean =>
  Boolean(
    as('IndexStmt', node)?.concurrent ||
      as('DropStmt', node)?.concurrent ||
      each('DefElem', as('ReindexStmt', node)?.params).some(({ defname }) => defname === 'concurrently') ||
      each('AlterTableCmd', as('AlterTableStmt', node)?.cmds).some(({ def }) => as('PartitionCmd', def)?.concurrent),
  );

/** Whoever the script became, it is the owner again when the migrator writes down that it ran. */
function checkRole(statements: readonly Statement[]): ShapeProblem[] {
  const last = statements.filter(({ node }) => as('VariableSetStmt', node)?.name === 'role').at(-1);
  const setting = as('VariableSetStmt', last?.node);
  if (last === undefined || setting?.kind !== 'VAR_SET_VALUE') return [];
  const advice = 'end with `reset role`: the migrator writes as jeex_owner, in the same transaction, that this one ran';
  return [{ rule: 'session', line: last.line, what: `\`${start(last.text)}\` lasts beyond the script`, advice }];
}

function checkRun(statements: readonly Statement[], { run, batch }: Directives): ShapeProblem[] {
  const problem = (line: number, what: string, advice: string): ShapeProblem => ({ rule: 'run', line, what, advice });
  if (run === 'transaction') {
    return statements
      .filter(({ node }) => !('CreateFunctionStmt' in node) && within('ParamRef', node).length > 0)
      .map(({ line }) => problem(line, 'has parameters, which nobody gives it', BATCHES));
  }
  const [only, second] = statements;
  const advice = run === 'concurrently' ? CONCURRENTLY : BATCHES;
  if (only === undefined) return [problem(1, `\`run: ${run}\` without a statement`, advice)];
  if (second !== undefined) return [problem(second.line, `\`run: ${run}\` with more than one statement`, advice)];
  const wrong = run === 'concurrently' ? wrongIndex(only.node) : batch && wrongBatch(only.node, batch);
  return wrong ? [problem(only.line, wrong, advice)] : [];
}

const CONCURRENTLY =
  'the file holds one `create index concurrently name on …` or `drop index concurrently name`: by the name the migrator finds ' +
  'and drops what a crash left unfinished, which `if not exists` would take for the index';
const BATCHES =
  'the file holds one update, insert or delete whose condition asks for `(key, columns) between ($1, $2) and ($3, $4)`: first ' +
  'and last key of a range, in the order of `batch:`';

const PLAIN = /^[a-z_][a-z0-9_]*$/;

/** What is wrong with the statement of a concurrent index. */
function wrongIndex(node: Node): string | null {
  const index = as('IndexStmt', node);
  if (index !== undefined) {
    if (!index.concurrent) return 'builds its index not concurrently';
    if (index.if_not_exists) return 'builds its index `if not exists`';
    return PLAIN.test(index.idxname ?? '') ? null : 'builds an index without a plain name';
  }
  const drop = as('DropStmt', node);
  if (drop?.removeType !== 'OBJECT_INDEX') return 'is no statement of an index';
  if (!drop.concurrent) return 'drops its index not concurrently';
  if (drop.missing_ok) return 'drops its index `if exists`';
  const [name = [], another] = each('List', drop.objects).map(({ items }) => each('String', items));
  if (another !== undefined) return 'drops more than one index';
  return name.length === 1 && PLAIN.test(name[0]?.sval ?? '') ? null : 'drops an index not by its plain name alone';
}

/** What is wrong with a statement that is to be repeated for one range of keys after the other. */
function wrongBatch(node: Node, { table, columns }: BatchKey): string | null {
  const write = as('UpdateStmt', node) ?? as('DeleteStmt', node);
  const insert = as('InsertStmt', node);
  if (write === undefined && insert === undefined) return 'is no update, insert or delete';
  if (write !== undefined && relationName(write.relation) !== qualified([table])) {
    return `writes ${write.relation?.relname}, and \`batch:\` names ${table}`;
  }
  const condition = write?.whereClause ?? as('SelectStmt', insert?.selectStmt)?.whereClause;
  const width = columns.length;
  const hasRange = conjuncts(condition).some((part) => isRange(part, columns));
  if (!hasRange) return `asks for no range of (${columns.join(', ')})`;
  const hasMore = within('ParamRef', node).some(({ number = 0 }) => number < 1 || number > 2 * width);
  return hasMore ? `has parameters beyond $${2 * width}` : null;
}

function isRange(condition: Node, columns: readonly string[]): boolean {
  const test = as('A_Expr', condition);
  const [first, last] = as('List', test?.rexpr)?.items ?? [];
  const from = (start: number): string => columns.map((_, index) => start + index).join();
  return (
    test?.kind === 'AEXPR_BETWEEN' &&
    fields(test.lexpr).map(columnName).join() === columns.join() &&
    fields(first).map(parameter).join() === from(1) &&
    fields(last).map(parameter).join() === from(1 + columns.length)
  );
}

/** Of a row of values, or of the one that stands alone. */
const fields = (value: Node | undefined): Node[] => as('RowExpr', value)?.args ?? (value === undefined ? [] : [value]);

/** Its number, also behind a cast. */
const parameter = (value: Node): number | undefined =>
  (as('ParamRef', value) ?? as('ParamRef', as('TypeCast', value)?.arg))?.number;
