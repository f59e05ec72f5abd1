import type { Node, ObjectType } from 'libpg-query';
import { ARBITER, CONTRACT, KEEP_SIGNATURE, RENAME, RIGHTS } from './advice.ts';
import { as, type Handlers, qualified, relationName, shown, strings } from './ast.ts';
import { inputs } from './creates.ts';
import { isArbiter } from './known.ts';
import type { ObjectKind, Scope } from './scope.ts';

interface Droppable {
  readonly kind: ObjectKind;
  readonly called: string;
  /** It keeps something that is nowhere else. */
  readonly stores?: true;
  readonly advice?: string;
}

const OTHER: Droppable = { kind: 'other', called: 'object' };
const ROUTINE = { kind: 'routine', advice: KEEP_SIGNATURE } as const;

const DROPPABLE: { readonly [K in ObjectType]?: Droppable } = {
  OBJECT_TABLE: { kind: 'relation', called: 'table', stores: true },
  OBJECT_FOREIGN_TABLE: { kind: 'relation', called: 'foreign table' },
  OBJECT_MATVIEW: { kind: 'relation', called: 'materialized view', stores: true },
  OBJECT_SEQUENCE: { kind: 'relation', called: 'sequence', stores: true },
  OBJECT_VIEW: { kind: 'relation', called: 'view' },
  OBJECT_INDEX: { kind: 'relation', called: 'index', advice: ARBITER },
  OBJECT_TYPE: { kind: 'type', called: 'type' },
  OBJECT_DOMAIN: { kind: 'type', called: 'domain' },
  OBJECT_SCHEMA: { kind: 'schema', called: 'schema' },
  OBJECT_FUNCTION: { ...ROUTINE, called: 'function' },
  OBJECT_PROCEDURE: { ...ROUTINE, called: 'procedure' },
  OBJECT_ROUTINE: { ...ROUTINE, called: 'routine' },
  OBJECT_AGGREGATE: { ...ROUTINE, called: 'aggregate' },
  OBJECT_POLICY: { kind: 'policy', called: 'policy', advice: RIGHTS },
  OBJECT_TRIGGER: { kind: 'other', called: 'trigger' },
  OBJECT_RULE: { kind: 'other', called: 'rule' },
};

/** Whose loss an older release may not notice; whether it does, the file does not tell. */
const QUIET: ReadonlySet<ObjectType> = new Set([
  'OBJECT_INDEX',
  'OBJECT_TRIGGER',
  'OBJECT_RULE',
  'OBJECT_STATISTIC_EXT',
]);
/** Whose names no statement of a release has to use. */
const UNNAMED: ReadonlySet<ObjectType> = new Set([
  'OBJECT_INDEX',
  'OBJECT_TABCONSTRAINT',
  'OBJECT_DOMCONSTRAINT',
  'OBJECT_POLICY',
  'OBJECT_TRIGGER',
  'OBJECT_RULE',
]);

export const DROPS: Handlers<Scope> = {
  DropStmt: ({ objects = [], removeType = 'OBJECT_TABLE', behavior }, scope) => {
    const droppable = DROPPABLE[removeType] ?? OTHER;
    const names = objects
      .map((node) => objectName(removeType, node))
      .filter((name) => !isKnown(droppable, name, scope));
    if (names.length === 0) return;
    const cascades = behavior === 'DROP_CASCADE';
    const what = `drops the ${droppable.called} ${names.map(shown).join(', ')}${cascades ? ' and what depends on it' : ''}`;
    const advice = droppable.advice ?? CONTRACT;
    if (droppable.stores || cascades) scope.find('destructive', what, advice);
    const isQuiet = QUIET.has(removeType) && !cascades && !(removeType === 'OBJECT_INDEX' && names.some(isUnique));
    if (isQuiet) scope.leaveOpen('backward-incompatible');
    else scope.find('backward-incompatible', what, advice);
  },
  RenameStmt: (
    { renameType = 'OBJECT_TABLE', relationType = 'OBJECT_TABLE', relation, object, subname, newname = '' },
    scope,
  ) => {
    if (UNNAMED.has(renameType)) return scope.leaveOpen('backward-incompatible');
    const isColumn = renameType === 'OBJECT_COLUMN' || renameType === 'OBJECT_ATTRIBUTE';
    const { kind, called } = DROPPABLE[isColumn ? relationType : renameType] ?? OTHER;
    const owner = relation === undefined ? objectName(renameType, object) : relationName(relation);
    if (scope.isNew(kind, owner)) {
      if (!isColumn) scope.make(kind, [...owner.split('.').slice(0, -1), newname].join('.'));
      return;
    }
    if (isColumn && scope.newColumn(owner, subname ?? '') !== undefined) return;
    const renamed = isColumn ? `column ${subname} of ${shown(owner)}` : `${called} ${shown(owner)}`;
    scope.find('backward-incompatible', `renames the ${renamed} to ${newname}`, RENAME);
  },
  AlterObjectSchemaStmt: ({ objectType = 'OBJECT_TABLE', relation, object, newschema }, scope) => {
    const { kind, called } = DROPPABLE[objectType] ?? OTHER;
    const name = relation === undefined ? objectName(objectType, object) : relationName(relation);
    if (scope.isNew(kind, name)) return;
    scope.find('backward-incompatible', `moves the ${called} ${shown(name)} to the schema ${newschema}`, RENAME);
  },
};

const isUnique = (index: string): boolean => isArbiter(index);

/** Made by this file; a policy also when it is made anew further down. */
const isKnown = ({ kind }: Droppable, name: string, scope: Scope): boolean =>
  scope.isNew(kind, name) ||
  (kind === 'policy' && (scope.policies.has(name) || scope.isNew('relation', tableOf(name))));

const tableOf = (policy: string): string => policy.slice(0, policy.lastIndexOf('.'));

/** How an object is known: schema and name, of a function its types too, of a policy also its table. */
function objectName(type: ObjectType, node: Node | undefined): string {
  const routine = as('ObjectWithArgs', node);
  if (routine !== undefined) {
    const name = qualified(strings(routine.objname));
    return routine.args_unspecified ? name : `${name}(${inputs(routine.objargs)})`;
  }
  if (type === 'OBJECT_SCHEMA') return as('String', node)?.sval ?? '';
  const parts = strings(as('List', node)?.items ?? as('TypeName', node)?.names ?? (node === undefined ? [] : [node]));
  const isOnTable = ['OBJECT_POLICY', 'OBJECT_TRIGGER', 'OBJECT_RULE'].includes(type);
  return isOnTable ? `${qualified(parts.slice(0, -1))}.${parts.at(-1)}` : qualified(parts);
}
