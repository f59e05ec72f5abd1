import type { Action, FactBase, StableId } from '@supabase/pg-delta';
import { narrowRight } from './grants.ts';
import { type Ends, key, plain, type Statement } from './steps.ts';

/** Who runs migrations. */
const OWNER = 'jeex_owner';
const GIVEN = /^ALTER (FUNCTION|PROCEDURE|AGGREGATE) (.+) OWNER TO "([^"]+)"$/s;
const GRANTED_TO_ITSELF = /^GRANT .+ TO "jeex_owner"$/s;
const TAKEN_FROM_ITSELF = /^REVOKE .+ ON FUNCTION .+ FROM "jeex_owner"$/s;
const GIVEN_TO_ITSELF = /^ALTER .+ OWNER TO "jeex_owner"$/s;
const EVERY_RIGHT =
  /^GRANT (EXECUTE|USAGE|SELECT, UPDATE, USAGE|DELETE, INSERT, MAINTAIN, REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE) ON /;

/**
 * Puts statements so that jeex_owner may run them. All but the definer functions is its own: these it changes in their
 * owner's name, and hands new ones over at the end. What the comparison spells out of an owner's rights goes without saying.
 */
export function asOwner(statements: readonly Statement[], ends: Ends): Statement[] {
  const made = new Set(statements.flatMap(({ action }) => action?.produces ?? []).map(key));
  const said = statements
    .filter((statement) => !goesWithoutSaying(statement, statements, made, ends.to))
    .flatMap((statement) => narrowRight(statement, ends, made) ?? []);
  const handed = said.filter(({ sql }) => GIVEN.test(sql));
  const back = said.filter((statement) => isGivenBack(statement, made, ends.to));
  const rest = said.filter((statement) => !handed.includes(statement) && !back.includes(statement));
  // Who replaces a function has to be allowed to call it.
  const kept = [
    ...rest.filter(({ sql }) => !TAKEN_FROM_ITSELF.test(sql)),
    ...rest.filter(({ sql }) => TAKEN_FROM_ITSELF.test(sql)),
  ];
  const names = kept.map(({ sql, action }) => (/^DROP /.test(sql) ? OWNER : nameFor(action, made, ends.from)));
  const inNames = kept.flatMap((statement, index) => {
    const [name = OWNER, before = OWNER, after = OWNER] = [names[index], names[index - 1], names[index + 1]];
    return [
      ...(name !== OWNER && name !== before ? [plain(`SET LOCAL ROLE ${name}`)] : []),
      statement,
      ...(name !== OWNER && name !== after ? [plain('RESET ROLE')] : []),
    ];
  });
  const makers = kept
    .filter(({ sql }) => /^CREATE /.test(sql))
    .map((statement) => names[kept.indexOf(statement)] ?? OWNER);
  const receivers = handed.map(({ sql }) => GIVEN.exec(sql)?.[3] ?? OWNER);
  // Whoever makes a function or is given one has to be allowed to make one in the schema.
  const guests = [...new Set([...makers, ...receivers])].filter((role) => role !== OWNER);
  const hosted = guests.filter((role) => makers.includes(role));
  const others = guests.filter((role) => !makers.includes(role));
  return [
    ...hosted.map((role) => plain(`GRANT CREATE ON SCHEMA jeex TO ${role}`)),
    ...inNames,
    ...others.map((role) => plain(`GRANT CREATE ON SCHEMA jeex TO ${role}`)),
    ...handed,
    ...back.flatMap((statement) => inName(ownerOf(routineOf(statement), ends.to), statement)),
    ...guests.map((role) => plain(`REVOKE CREATE ON SCHEMA jeex FROM ${role}`)),
  ];
}

/**
 * The functions that have to be made anew because they become jeex_owner's: who has given one away cannot take it back.
 * @returns how to drop each
 */
export const takenBack = (actions: readonly Action[], from: FactBase): string[] =>
  actions.flatMap(({ sql, consumes }) => {
    const [, kind, signature, receiver] = GIVEN.exec(sql) ?? [];
    const routine = consumes.find(isRoutine);
    const isTaken = receiver === OWNER && routine && from.has(routine) && ownerOf(routine, from) !== OWNER;
    return isTaken ? [`DROP ${kind} ${signature}`] : [];
  });

const inName = (role: string, statement: Statement): Statement[] => [
  plain(`SET LOCAL ROLE ${role}`),
  statement,
  plain('RESET ROLE'),
];

const routineOf = ({ action }: Statement): StableId | undefined => action?.consumes.find(isRoutine);

/** A right of jeex_owner on a function that it hands over: given before, it would become a right of the new owner. */
function isGivenBack(statement: Statement, made: ReadonlySet<string>, to: FactBase): boolean {
  const routine = routineOf(statement);
  const isNew = routine !== undefined && made.has(key(routine)) && ownerOf(routine, to) !== OWNER;
  return isNew && GRANTED_TO_ITSELF.test(statement.sql);
}

const isRoutine = ({ kind }: StableId): boolean => kind === 'function' || kind === 'procedure' || kind === 'aggregate';

const ownerOf = (id: StableId | undefined, base: FactBase): string => {
  const owner = id && base.outgoingEdges(id).find(({ kind }) => kind === 'owner')?.to;
  return owner?.kind === 'role' ? owner.name : OWNER;
};

/** In whose name a statement runs: that of the function's owner, where it is about a function that was there before. */
function nameFor(action: Action | null, made: ReadonlySet<string>, from: FactBase): string {
  const routine = [...(action?.produces ?? []), ...(action?.destroys ?? []), ...(action?.consumes ?? [])].find(
    isRoutine,
  );
  return routine === undefined || made.has(key(routine)) || !from.has(routine) ? OWNER : ownerOf(routine, from);
}

/** That jeex_owner owns what it makes, and that an owner has every right on it. */
function goesWithoutSaying(
  { sql, action }: Statement,
  statements: readonly Statement[],
  made: ReadonlySet<string>,
  to: FactBase,
): boolean {
  if (action === null) return false;
  if (GIVEN_TO_ITSELF.test(sql)) return action.consumes.some((id) => made.has(key(id)));
  const right = [...action.produces, ...action.consumes].find((id) => id.kind === 'acl');
  if (right?.kind !== 'acl' || !made.has(key(right.target)) || right.grantee !== ownerOf(right.target, to))
    return false;
  const grants = statements.filter((other) => other.action?.consumes.some((id) => key(id) === key(right)));
  return grants.length === 1 && grants.every((grant) => EVERY_RIGHT.test(grant.sql));
}
