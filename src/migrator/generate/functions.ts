import type { Action, FactBase, StableId } from '@supabase/pg-delta';
import type { FunctionParameter } from 'libpg-query';
import { as, each } from '../lint/ast.ts';
import type { Parser } from '../lint/parser.ts';
import { key } from './steps.ts';

const ABOUT = /^(?:ALTER FUNCTION .+ OWNER TO|(?:GRANT|REVOKE) .+ ON FUNCTION) /s;

/** Replaces a function in place that the comparison would drop and make anew, where PostgreSQL has a way to. */
export function replaceFunctions(
  actions: readonly Action[],
  from: FactBase,
  to: FactBase,
  parser: Parser,
): readonly Action[] {
  const dropped = new Set(actions.flatMap(({ destroys }) => destroys.filter(isFunction)).map(key));
  const replaced = new Set(
    actions
      .flatMap(({ produces }) => produces.filter(isFunction))
      .filter((id) => dropped.has(key(id)) && isReplaceable(id, from, to, parser))
      .map(key),
  );
  const isReplaced = (id: StableId) => replaced.has(key(id));
  // Its owner and its rights stay with it.
  const isSaid = ({ sql, destroys, consumes }: Action) =>
    destroys.some(isReplaced) || (ABOUT.test(sql) && consumes.some(isReplaced));
  return actions
    .filter((action) => !isSaid(action))
    .map((action) => {
      const made = action.produces.find(isReplaced);
      return made ? { ...action, verb: 'alter' as const, produces: [], consumes: [made, ...action.consumes] } : action;
    });
}

const isFunction = ({ kind }: StableId): boolean => kind === 'function';

/** What may change in place: the body, what it declares of itself, and the defaults of parameters that have one or get one. */
function isReplaceable(id: StableId, from: FactBase, to: FactBase, parser: Parser): boolean {
  if (from.incomingEdges(id).some(({ kind }) => kind !== 'owner') || standing(id, from) !== standing(id, to))
    return false;
  const [was, is] = [from, to].map((facts) => parametersOf(String(facts.get(id)?.payload.def), parser));
  const returns = [from, to].map((facts) => facts.get(id)?.payload.returnType);
  if (was === undefined || is === undefined || was.length !== is.length || returns[0] !== returns[1]) return false;
  return was.every(
    (one, index) => isSame(one, is[index]) && (one.defexpr === undefined || is[index]?.defexpr !== undefined),
  );
}

const parametersOf = (definition: string, parser: Parser): FunctionParameter[] =>
  each('FunctionParameter', as('CreateFunctionStmt', parser.statements(definition)[0]?.node)?.parameters);

const isSame = (one: FunctionParameter, other: FunctionParameter | undefined): boolean =>
  other !== undefined && one.name === other.name && one.mode === other.mode;

/** Whose it is and who may call it, as text that can be compared. */
function standing(id: StableId, facts: FactBase): string {
  const owners = facts.outgoingEdges(id).filter(({ kind }) => kind === 'owner');
  const rights = facts.facts().filter((fact) => fact.id.kind === 'acl' && key(fact.id.target) === key(id));
  return JSON.stringify([owners.map(({ to }) => to), rights.map((right) => [right.id, right.payload]).sort()]);
}
