import type { Action, FactBase, StableId } from '@supabase/pg-delta';
import { key } from './steps.ts';

const CREATE = /^CREATE POLICY ("(?:[^"]|"")+" ON "(?:[^"]|"")+"\."(?:[^"]|"")+")(?: AS [A-Z]+)? FOR [A-Z]+ TO /;
/** What a policy may speak of, so that it has to be away while that is changed. */
const SPOKEN_OF = new Set<StableId['kind']>(['table', 'column', 'function', 'type', 'domain', 'view']);

/** Alters a policy that the comparison would drop and make anew, where PostgreSQL has a way to. */
export function alterPolicies(actions: readonly Action[], from: FactBase, to: FactBase): readonly Action[] {
  if (actions.some(disturbs)) return actions;
  const dropped = new Set(actions.flatMap(({ destroys }) => destroys.filter(isPolicy)).map(key));
  const altered = new Set<string>();
  const rewritten = actions.map((action): Action => {
    const policy = action.produces.find(isPolicy);
    if (policy === undefined || !dropped.has(key(policy)) || !isAlterable(policy, from, to)) return action;
    altered.add(key(policy));
    const sql = action.sql.replace(CREATE, 'ALTER POLICY $1 TO ');
    return { ...action, sql, verb: 'alter', produces: [], consumes: [policy, ...action.consumes] };
  });
  return rewritten.filter(({ destroys }) => !destroys.some((id) => altered.has(key(id))));
}

const isPolicy = ({ kind }: StableId): boolean => kind === 'policy';

const disturbs = ({ sql, destroys }: Action): boolean =>
  destroys.some(({ kind }) => SPOKEN_OF.has(kind)) || / ALTER COLUMN .* TYPE /.test(sql);

/** For whom a policy is and what it asks can be altered; for which command it is, and that it asks at all, cannot. */
function isAlterable(policy: StableId, from: FactBase, to: FactBase): boolean {
  const [was, is] = [from.get(policy)?.payload, to.get(policy)?.payload];
  if (was === undefined || is === undefined || was.cmd !== is.cmd || was.permissive !== is.permissive) return false;
  return (was.usingExpr === null) === (is.usingExpr === null) && (was.checkExpr === null) === (is.checkExpr === null);
}
