import type { GrantStmt } from 'libpg-query';
import { CONTRACT, RIGHTS, WALLS } from './advice.ts';
import { as, each, type Handlers, qualified, relationName, shown, strings } from './ast.ts';
import { inputs } from './creates.ts';
import type { ObjectKind, Scope } from './scope.ts';
import { roleName } from './walls.ts';

/** Who may do what. */
export const RIGHTS_CHANGES: Handlers<Scope> = {
  GrantStmt: (statement, scope) => {
    const rights = rightsOf(statement);
    if (statement.is_grant) {
      for (const { key } of rights) scope.grant(key);
      return findPublic(statement, scope);
    }
    const lost = rights.filter(({ key, kind, object }) => !scope.isGranted(key) && !scope.isNew(kind, object));
    if (lost.length === 0) return;
    const of = (part: (right: Right) => string): string => [...new Set(lost.map(part))].join(', ');
    const what = `revokes ${of(({ right }) => right)} on ${of(({ object }) => shown(object))} from ${of(({ who }) => who)}`;
    scope.find('backward-incompatible', what, RIGHTS);
  },
  // Of what is made from now on: nobody loses a right by it.
  AlterDefaultPrivilegesStmt: ({ action }, scope) => {
    if (action?.is_grant) findPublic(action, scope);
  },
  AlterOwnerStmt: (_, scope) => scope.leaveOpen('backward-incompatible'),
  AlterFunctionStmt: (_, scope) => scope.leaveOpen('backward-incompatible'),
  AlterEnumStmt: ({ typeName, oldVal, newVal }, scope) => {
    const type = qualified(strings(typeName));
    // An older release may meet a value that it does not know.
    if (oldVal === undefined) return scope.leaveOpen('backward-incompatible');
    if (scope.isNew('type', type)) return;
    scope.find('backward-incompatible', `renames the value ${oldVal} of ${shown(type)} to ${newVal}`, CONTRACT);
  },
};

interface Right {
  readonly key: string;
  readonly kind: ObjectKind;
  readonly object: string;
  readonly right: string;
  readonly who: string;
}

/** A role of the service is named: whoever else may log in on the server is public, too. */
function findPublic({ grantees, privileges }: GrantStmt, scope: Scope): void {
  if (!each('RoleSpec', grantees).some(({ roletype }) => roletype === 'ROLESPEC_PUBLIC')) return;
  const rights = each('AccessPriv', privileges).map(({ priv_name: name = 'all' }) => name);
  scope.find('walls', `grants ${rights.length > 0 ? rights.join(', ') : 'all'} to public`, WALLS);
}

/** Every right that the statement gives or takes, of everyone and on everything it names. */
function rightsOf({ objtype, targtype, objects, privileges, grantees }: GrantStmt): Right[] {
  const named = (objects ?? []).map((node) => {
    const routine = as('ObjectWithArgs', node);
    if (routine !== undefined) {
      const name = qualified(strings(routine.objname));
      const object = routine.args_unspecified ? name : `${name}(${inputs(routine.objargs)})`;
      return { kind: 'routine' as const, object };
    }
    const relation = as('RangeVar', node);
    if (relation !== undefined) return { kind: 'relation' as const, object: relationName(relation) };
    const type = as('List', node);
    if (type !== undefined) return { kind: 'type' as const, object: qualified(strings(type.items)) };
    const schema = as('String', node)?.sval ?? '';
    // `all tables in schema` names the schema and means tables of any age.
    return { kind: targtype === 'ACL_TARGET_OBJECT' ? ('schema' as const) : ('other' as const), object: schema };
  });
  const rights = each('AccessPriv', privileges).map(
    ({ priv_name: name, cols }) => `${name ?? 'all'}${cols === undefined ? '' : ` (${strings(cols).join(', ')})`}`,
  );
  const who = each('RoleSpec', grantees).map(roleName);
  return named.flatMap(({ kind, object }) =>
    (rights.length > 0 ? rights : ['all']).flatMap((right) =>
      who.map((one) => ({ key: [objtype, targtype, object, right, one].join(' '), kind, object, right, who: one })),
    ),
  );
}
