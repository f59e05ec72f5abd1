import type { Action, StableId } from '@supabase/pg-delta';
import { type Ends, key, replacedOf } from './steps.ts';

/** What a person has to write, since no comparison of schemas can know how the rows come through it. */
export class Hazard extends Error {
  readonly reasons: readonly string[];

  constructor(reasons: readonly string[]) {
    super(reasons.join('\n'));
    this.name = 'Hazard';
    this.reasons = reasons;
  }
}

/** @throws Hazard where the actions would lose what rows hold, or leave a gap in what the service relies on */
export function refuseHazards(actions: readonly Action[], ends: Ends): void {
  const reasons = [...losses(actions, ends), ...retypings(ends), ...gaps(actions, ends)];
  if (reasons.length > 0) throw new Hazard(reasons);
}

/** What would be dropped and made anew under its name, empty. */
function losses(actions: readonly Action[], { from, to }: Ends): string[] {
  const gone = new Set(actions.flatMap(({ destroys }) => destroys).map(key));
  const isGenerated = (id: StableId) =>
    [from, to].some((facts) => (facts.get(id)?.payload.generatedExpr ?? null) !== null);
  return actions
    .flatMap(({ produces }) => produces)
    .filter((id) => gone.has(key(id)) && (id.kind === 'table' || (id.kind === 'column' && !isGenerated(id))))
    .map(
      (id) => `${describe(id)} would be dropped and made anew without what it holds: alter it in place, or ${EXPAND}`,
    );
}

const EXPAND =
  'expand and contract: add the new one, write both, backfill it with `run: batches`, and drop the old one later';

/** Columns whose values a cast would change, or fail on. */
const retypings = ({ from, to }: Ends): string[] =>
  from.facts().flatMap(({ id, payload }) => {
    const [was, is] = [payload.type, to.get(id)?.payload.type];
    if (id.kind !== 'column' || is === undefined || widens(String(was), String(is))) return [];
    return [`${describe(id)} would be cast from ${was} to ${is}, whatever its values mean: ${EXPAND}`];
  });

/** From each type: those that hold the same values as well. */
const WIDER: Readonly<Record<string, readonly string[]>> = {
  smallint: ['integer', 'bigint', 'numeric'],
  integer: ['bigint', 'numeric'],
  bigint: ['numeric'],
  real: ['double precision'],
  'character varying': ['text'],
  text: ['character varying'],
  numeric: [],
};
const SIZED = /^(character varying|numeric)(?:\((\d+)(?:,(-?\d+))?\))?$/;

/** Whether every value of one type is the same value of the other. */
function widens(from: string, to: string): boolean {
  if (from === to || WIDER[from]?.includes(to)) return true;
  const [, kind = '', size, scale = '0'] = SIZED.exec(from) ?? [];
  const [, other, wider, widerScale = '0'] = SIZED.exec(to) ?? [];
  if (size === undefined) return false;
  if (to === kind || WIDER[kind]?.includes(to)) return true;
  const whole = Number(wider) - Number(widerScale) >= Number(size) - Number(scale);
  return other === kind && wider !== undefined && whole && Number(widerScale) >= Number(scale);
}

/** What would be away for a while, because it cannot be built beside what it replaces. */
function gaps(actions: readonly Action[], ends: Ends): string[] {
  const gone = actions.flatMap(({ destroys }) => destroys);
  const dropped = new Set(gone.map(key));
  const replaced = replacedOf(actions, ends);
  const needed = replaced.filter((id) => ends.from.incomingEdges(id).length > 0);
  const bound = replaced.filter((id) => ends.from.outgoingEdges(id).some(({ to }) => dropped.has(key(to))));
  const names = new Set(gone.filter(({ kind }) => kind === 'index').map(nameOf));
  const exchanged = actions
    .flatMap(({ produces }) => produces)
    .filter((id) => id.kind === 'constraint' && names.has(id.name));
  return [
    ...needed.map((id) => `${describe(id)} changes and something else needs it, such as a foreign key: ${BESIDE}`),
    ...bound.map(
      (id) => `${describe(id)} changes with something it is about that goes: generate the one, then the other`,
    ),
    ...exchanged.map((id) => `${describe(id)} takes the name of an index that goes: ${BESIDE}`),
  ];
}

const BESIDE =
  'build the new index concurrently under another name, and in one transaction drop the old one and add the constraint ' +
  '`using index`';

const nameOf = (id: StableId): string => ('name' in id ? id.name : '');

const describe = (id: StableId): string =>
  'table' in id ? `${id.kind} ${nameOf(id)} of ${id.table}` : `${id.kind} ${nameOf(id)}`;
