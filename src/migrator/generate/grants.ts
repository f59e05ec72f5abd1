import type { FactBase, StableId } from '@supabase/pg-delta';
import { type Ends, key, type Statement } from './steps.ts';

type Right = Extract<StableId, { readonly kind: 'acl' }>;

const CHANGE = /^(GRANT|REVOKE) (?:ALL|[A-Z, ]+?)((?: \("(?:[^"]|"")+"\))?) ON (.*)$/s;

/**
 * Says only what changes of a right on something that was there before, where the comparison takes all away and grants anew.
 * @returns null where nothing is left to say
 */
export function narrowRight(statement: Statement, { from, to }: Ends, made: ReadonlySet<string>): Statement | null {
  const rights = [...(statement.action?.produces ?? []), ...(statement.action?.consumes ?? [])].filter(isRight);
  const [right, another] = rights;
  const [, verb, columns = '', rest] = CHANGE.exec(statement.sql) ?? [];
  if (right === undefined || another !== undefined || verb === undefined || made.has(key(right.target)))
    return statement;
  const [had, has] = [privileges(right, from), privileges(right, to)];
  if (had === null || has === null) return statement;
  const changed = verb === 'GRANT' ? has.filter((one) => !had.includes(one)) : had.filter((one) => !has.includes(one));
  if (changed.length === 0) return null;
  return { ...statement, sql: `${verb} ${changed.map((one) => one + columns).join(', ')} ON ${rest}` };
}

const isRight = (id: StableId): id is Right => id.kind === 'acl';

/** Null: some of them may be passed on, which is left to the comparison. */
function privileges(right: Right, base: FactBase): readonly string[] | null {
  const { privileges: all = [], grantable = [] } = (base.get(right)?.payload ?? {}) as Record<
    string,
    readonly string[]
  >;
  return grantable.length > 0 ? null : all;
}
