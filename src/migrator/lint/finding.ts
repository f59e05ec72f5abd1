/** What a change can do to those who have data or run an older release. */
export const CHANGE_CLASSES = ['destructive', 'data-dependent', 'backward-incompatible'] as const;
export type ChangeClass = (typeof CHANGE_CLASSES)[number];

/** What a statement of a migration does that a person has to have meant. */
export interface Finding {
  /** `dynamic-sql`: it cannot be told before it runs. */
  readonly class: ChangeClass | 'dynamic-sql';
  /** Of the statement, from 1. */
  readonly line: number;
  /** What it does, in words: `drops the table users`. */
  readonly what: string;
  /** The safer way. */
  readonly advice: string;
}
