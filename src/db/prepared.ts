/** A statement as a connection prepares it. */
export interface Prepared {
  readonly name: string;
  readonly text: string;
}

/** How often each statement was given another text, by its name; what every connection of the process goes by. */
const generations = new Map<string, number>();

/**
 * More of them no migrations bring about, but a pooler that keeps no prepared statements: each would leave one behind in
 * PostgreSQL.
 */
const MAX_GENERATION = 100;

/** PostgreSQL's word for a plan that would answer other columns than when it was prepared; its message may be translated. */
const CHANGED_RESULT = 'RevalidateCachedQuery';
/** No such prepared statement; one of this name already: what remains when a pooler, or DISCARD, changed it behind our back. */
const LOST = new Set(['26000', '42P05']);

/** A statement under the name and with the text that are good now. */
export const current = ({ name, text }: Prepared): Prepared => {
  const generation = generations.get(name) ?? 0;
  return generation === 0 ? { name, text } : { name: `${name}_${generation}`, text: `${text} -- ${generation}` };
};

/** Whether PostgreSQL refused to run a statement because of how it was prepared: nothing was executed. */
export const isStale = (error: unknown): boolean => {
  const { code = '', routine } = error as { readonly code?: string; readonly routine?: string };
  return (code === '0A000' && routine === CHANGED_RESULT) || LOST.has(code);
};

/**
 * Gives a statement another name and another text, unless somebody already has: a pooler shares what it prepared by the
 * text alone, so that only another text is prepared anew.
 * @param failed as `current` gave it
 * @returns whether there is another one now
 */
export const renew = (statement: Prepared, failed: Prepared): boolean => {
  if (current(statement).name !== failed.name) return true;
  const generation = generations.get(statement.name) ?? 0;
  if (generation === MAX_GENERATION) return false;
  generations.set(statement.name, generation + 1);
  return true;
};
