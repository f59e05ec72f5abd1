import type { AlterTableCmd, AlterTableType } from 'libpg-query';
import { ARBITER, CONTRACT, NEW_RULE, NOT_NULL, RETYPE, RIGHTS, VALIDATED, WALLS } from './advice.ts';
import { as, each, type Handlers, qualified, relationName, shown, strings } from './ast.ts';
import { addColumn, addConstraint } from './constraints.ts';
import { isArbiter } from './known.ts';
import type { Scope } from './scope.ts';

type Command = (table: string, command: AlterTableCmd, scope: Scope) => void;

/** A finding on the column that a command names, unless the file has added that column. */
const onColumn =
  (find: (scope: Scope, column: string) => void): Command =>
  (table, { name = '' }, scope) => {
    if (scope.newColumn(table, name) === undefined) find(scope, `${name} of ${shown(table)}`);
  };

/** A finding on the walls between projects. */
const onWalls =
  (what: (table: string) => string): Command =>
  (table, _, scope) =>
    scope.find('walls', what(shown(table)), WALLS);

const harmless: Command = () => {};
const open: Command = (_table, _command, scope) => scope.leaveOpen();

/** A command that is not here may do anything. */
const COMMANDS: { readonly [K in AlterTableType]?: Command } = {
  AT_AddColumn: (table, { def, missing_ok: maybe = false }, scope) =>
    addColumn(table, as('ColumnDef', def) ?? {}, maybe, scope),
  AT_DropColumn: onColumn((scope, column) => {
    scope.find('destructive', `drops the column ${column}`, CONTRACT);
    scope.find('backward-incompatible', `drops the column ${column}`, CONTRACT);
  }),
  AT_AlterColumnType: onColumn((scope, column) => {
    const what = `changes the type of ${column}`;
    scope.find('destructive', `${what}, and its values with it`, RETYPE);
    scope.find('data-dependent', what, RETYPE);
    scope.find('backward-incompatible', what, RETYPE);
  }),
  AT_SetNotNull: (table, { name = '' }, scope) => {
    if (scope.newColumn(table, name) === 'filled') return;
    const what = `makes ${name} of ${shown(table)} not null`;
    scope.find('data-dependent', what, NOT_NULL);
    scope.find('backward-incompatible', what, NEW_RULE);
  },
  AT_ColumnDefault: (table, { name, def }, scope) => {
    if (def !== undefined) return;
    scope.find('backward-incompatible', `drops the default of ${name} of ${shown(table)}`, CONTRACT);
  },
  AT_DropIdentity: onColumn((scope, column) =>
    scope.find('backward-incompatible', `no longer numbers ${column}`, CONTRACT),
  ),
  AT_AddIdentity: (table, { name, def }, scope) => {
    // Whoever writes a value of its own is refused.
    if (as('Constraint', def)?.generated_when !== 'a') return;
    scope.find('backward-incompatible', `numbers ${name} of ${shown(table)} always`, NEW_RULE);
  },
  AT_DropExpression: onColumn((scope, column) =>
    scope.find('backward-incompatible', `no longer computes ${column}`, CONTRACT),
  ),
  AT_SetExpression: onColumn((scope, column) =>
    scope.find('data-dependent', `computes ${column} anew in every row`, VALIDATED),
  ),
  AT_AddConstraint: (table, { def }, scope) => addConstraint(table, as('Constraint', def) ?? {}, scope),
  AT_DropConstraint: (table, { name = '', behavior }, scope) => {
    const cascades = behavior === 'DROP_CASCADE';
    const what = `drops the constraint ${name} of ${shown(table)}${cascades ? ' and what depends on it' : ''}`;
    if (cascades) scope.find('destructive', what, CONTRACT);
    if (isArbiter(name, table)) scope.find('backward-incompatible', what, ARBITER);
    else if (cascades) scope.find('backward-incompatible', what, CONTRACT);
    else scope.leaveOpen('backward-incompatible');
  },
  AT_ValidateConstraint: (table, { name }, scope) =>
    scope.find('data-dependent', `validates ${name} of ${shown(table)}`, VALIDATED),
  AT_AlterConstraint: (table, { def }, scope) => {
    const { conname, alterEnforceability, is_enforced: enforced } = as('ATAlterConstraint', def) ?? {};
    if (!alterEnforceability || !enforced) return scope.leaveOpen('backward-incompatible');
    const what = `enforces ${conname} of ${shown(table)}`;
    scope.find('data-dependent', what, VALIDATED);
    scope.find('backward-incompatible', what, NEW_RULE);
  },
  AT_AttachPartition: (table, _, scope) =>
    scope.find('data-dependent', `attaches a partition to ${shown(table)}`, VALIDATED),
  AT_DetachPartition: (table, _, scope) =>
    scope.find('backward-incompatible', `detaches a partition from ${shown(table)}`, CONTRACT),
  AT_EnableRowSecurity: (table, _, scope) =>
    scope.find('backward-incompatible', `turns on row-level security of ${shown(table)}`, RIGHTS),
  AT_SetUnLogged: (table, _, scope) =>
    scope.find('destructive', `makes ${shown(table)} unlogged: a crash empties it`, 'keep it logged'),
  AT_ForceRowSecurity: (_table, _command, scope) => scope.leaveOpen('backward-incompatible'),
  AT_DisableRowSecurity: onWalls((table) => `turns off row-level security of ${table}`),
  AT_NoForceRowSecurity: onWalls((table) => `frees the owner of ${table} from its row-level security`),
  AT_ChangeOwner: (table, { newowner }, scope) => {
    const owner = newowner?.rolename ?? 'whoever runs it';
    scope.leaveOpen('backward-incompatible');
    if (owner !== OWNER) scope.find('walls', `gives ${shown(table)} to ${owner}`, WALLS);
  },
  AT_DropNotNull: open,
  AT_SetIdentity: open,
  AT_EnableTrig: open,
  AT_ClusterOn: harmless,
  AT_DropCluster: harmless,
  AT_SetStatistics: harmless,
  AT_SetStorage: harmless,
  AT_SetCompression: harmless,
  AT_SetOptions: harmless,
  AT_ResetOptions: harmless,
  AT_SetRelOptions: harmless,
  AT_ResetRelOptions: harmless,
};

const OWNER = 'jeex_owner';

/** Of a composite type: callers build its values field by field, in the order it had. */
const ATTRIBUTES: { readonly [K in AlterTableType]?: string } = {
  AT_AddColumn: 'adds a field to',
  AT_DropColumn: 'drops a field of',
  AT_AlterColumnType: 'changes the type of a field of',
};

/** By PostgreSQL's letters for them. */
const DOMAIN_CHANGES: Readonly<Record<string, (name: string) => string>> = {
  O: (name) => `makes ${name} not null`,
  C: (name) => `adds a check to ${name}`,
  V: (name) => `validates a check of ${name}`,
};

export const ALTERS: Handlers<Scope> = {
  AlterTableStmt: ({ relation, cmds, objtype = 'OBJECT_TABLE' }, scope) => {
    const name = relationName(relation);
    const isType = objtype === 'OBJECT_TYPE';
    if (scope.isNew(isType ? 'type' : 'relation', name)) return;
    for (const command of each('AlterTableCmd', cmds)) {
      if (isType) alterType(name, command, scope);
      else alterTable(name, command, scope);
    }
  },
  AlterDomainStmt: ({ subtype, typeName, def, behavior }, scope) => {
    const type = qualified(strings(typeName));
    if (scope.isNew('type', type)) return;
    if (behavior === 'DROP_CASCADE') {
      scope.find('destructive', `drops a check of ${shown(type)} and what depends on it`, CONTRACT);
    }
    const what = DOMAIN_CHANGES[subtype ?? '']?.(shown(type));
    if (what === undefined) return scope.leaveOpen('backward-incompatible');
    if (!as('Constraint', def)?.skip_validation) scope.find('data-dependent', what, VALIDATED);
    if (subtype !== 'V') scope.find('backward-incompatible', what, NEW_RULE);
  },
};

function alterTable(table: string, command: AlterTableCmd, scope: Scope): void {
  const judge = command.subtype && COMMANDS[command.subtype];
  if (judge) judge(table, command, scope);
  else scope.findUnknown();
}

function alterType(name: string, { subtype = 'AT_AddColumn', behavior }: AlterTableCmd, scope: Scope): void {
  const what = `${ATTRIBUTES[subtype] ?? 'changes'} the type ${shown(name)}`;
  if (subtype === 'AT_DropColumn' || behavior === 'DROP_CASCADE') scope.find('destructive', what, CONTRACT);
  scope.find('backward-incompatible', what, CONTRACT);
}
