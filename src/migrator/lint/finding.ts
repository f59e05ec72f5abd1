/** What a change can do to those who have data or run an older release. */
export const CHANGE_CLASSES = ['destructive', 'data-dependent', 'backward-incompatible'] as const;
export type ChangeClass = (typeof CHANGE_CLASSES)[number];

/**
 * What belongs to no class: SQL that is put together at run time; a function that is called; a kind of statement that is not
 * judged; the walls between projects; an update of a whole table in one transaction.
 */
export const RULES = ['dynamic-sql', 'calls', 'unknown', 'walls', 'whole-table'] as const;
type Rule = (typeof RULES)[number];

/** What a statement of a migration does that a person has to have meant. */
export interface Finding {
  readonly class: ChangeClass | Rule;
  /** Of the statement, from 1. */
  readonly line: number;
  /** What it does, in words: `drops the table users`. */
  readonly what: string;
  /** The safer way. */
  readonly advice: string;
}

/** The first words of a statement, on one line. */
export function start(text: string): string {
  const flat = text.trim().replace(/\s+/g, ' ');
  return flat.length > 60 ? `${flat.slice(0, 59)}…` : flat;
}
