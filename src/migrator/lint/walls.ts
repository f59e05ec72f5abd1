import type { Node, RoleSpec } from 'libpg-query';
import { NEW_RULE, WALLS } from './advice.ts';
import { as, each, type Handlers, relationName, shown, within } from './ast.ts';
import { isOpenPolicy } from './known.ts';
import type { Scope } from './scope.ts';

/** Who sees the rows of every project: those who look after them. */
const KEEPERS: ReadonlySet<string | undefined> = new Set(['jeex_owner', 'jeex_backup']);

/** Judges what a policy shows, on a table of any age: what belongs to a new one is worth as much. */
export const POLICIES: Handlers<Scope> = {
  CreatePolicyStmt: ({ table, policy_name: name = '', permissive, roles, qual, with_check: check }, scope) => {
    const target = relationName(table);
    if (permissive && isOpen([qual, check])) findOpen(name, target, roles, scope);
    if (scope.isNew('relation', target)) return;
    if (permissive) return scope.leaveOpen('backward-incompatible');
    scope.find('backward-incompatible', `adds the restrictive policy ${name} to ${shown(target)}`, NEW_RULE);
  },
  AlterPolicyStmt: ({ table, policy_name: name = '', roles, qual, with_check: check }, scope) => {
    const target = relationName(table);
    if (!scope.isNew('relation', target)) scope.leaveOpen('backward-incompatible');
    const asksAsBefore = qual === undefined && check === undefined;
    if (asksAsBefore ? isOpenPolicy(name, target) : isOpen([qual, check])) findOpen(name, target, roles, scope);
  },
};

function findOpen(policy: string, table: string, roles: readonly Node[] | undefined, scope: Scope): void {
  const others = roles && each('RoleSpec', roles).filter(({ rolename }) => !KEEPERS.has(rolename));
  if (others?.length === 0) return;
  const whom = others === undefined ? 'whoever it is for' : others.map(roleName).join(', ');
  scope.find('walls', `lets ${whom} see or write every row of ${shown(table)} by the policy ${policy}`, WALLS);
}

export const roleName = ({ rolename, roletype }: RoleSpec): string =>
  rolename ?? (roletype === 'ROLESPEC_PUBLIC' ? 'public' : 'whoever runs it');

const isOpen = (conditions: readonly (Node | undefined)[]): boolean =>
  conditions.some((condition) => condition !== undefined && passesAll(condition));

/** A condition that asks nothing of the row lets every row pass, or none. */
function passesAll(condition: Node): boolean {
  const { boolop, args = [] } = as('BoolExpr', condition) ?? {};
  if (boolop === 'OR_EXPR') return args.some(passesAll);
  if (boolop === 'AND_EXPR') return args.every(passesAll);
  const constant = as('A_Const', condition);
  if (constant?.boolval !== undefined) return constant.boolval.boolval === true;
  return within('ColumnRef', condition).length === 0;
}
