import type { Action, StableId } from '@supabase/pg-delta';
import { key, type Statement } from './steps.ts';

const KINDS: Readonly<Record<string, string>> = { defaultPrivilege: 'default rights', typeAttribute: 'attribute' };
const VERBS = { create: 'Makes', alter: 'Changes', drop: 'Drops' } as const;

/** What the statements do, a line for each verb, by the names of the objects. */
export function summarise(statements: readonly Statement[]): string[] {
  const made = new Set(statements.flatMap(({ action }) => (action ? ids(action).made : [])).map(key));
  const said = new Map<string, Set<string>>();
  for (const { action } of statements) {
    const [verb, subject] = action === null ? [] : whatAndTo(action, made);
    if (verb !== undefined && subject !== undefined) said.set(verb, (said.get(verb) ?? new Set()).add(subject));
  }
  return [
    ...[...said].map(([verb, subjects]) => `${verb} ${[...subjects].join(', ')}.`),
    ...statements.flatMap(({ says = [] }) => says),
  ];
}

const ids = ({ produces, destroys, consumes }: Action) => ({
  made: produces.filter(({ kind }) => kind === 'table' || kind === 'function'),
  subject: produces[0] ?? destroys[0] ?? consumes[0],
});

/** Nothing about what comes with a table or a function that is new: it goes without saying. */
function whatAndTo(action: Action, made: ReadonlySet<string>): [verb?: string, subject?: string] {
  const { subject } = ids(action);
  if (subject === undefined) return [];
  if (subject.kind === 'acl')
    return made.has(key(subject.target)) ? [] : ['Changes the rights on', nameOf(subject.target)];
  const isNew = action.verb !== 'create' && made.has(key(subject));
  return isNew ? [] : [VERBS[action.verb], nameOf(subject)];
}

function nameOf(id: StableId): string {
  const kind = KINDS[id.kind] ?? id.kind;
  if (id.kind === 'column') return `column ${id.table}.${id.name}`;
  if (id.kind === 'default') return `the default of ${id.table}.${id.name}`;
  if ('table' in id && 'name' in id) return `${kind} ${id.name} on ${id.table}`;
  if ('target' in id) return `the ${kind} of ${nameOf(id.target)}`;
  return 'name' in id ? `${kind} ${id.name}` : kind;
}
