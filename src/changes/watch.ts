import { invalidField, Refusal, refusalOf } from '../refusal.ts';
import type { ChangeRow, NewsRow } from './sql.ts';

/** What became of one watched project since it was last asked for: changes in order, or that there are none. */
export interface News {
  readonly changes: readonly ChangeRow[];
  /** The project's revision, when all changes up to it are known. */
  readonly revision: bigint;
}

/** One project that one stream watches. */
export interface Watch {
  readonly stream: Watching;
  readonly project: string;
  /** The request's field that holds its cursor's revision. */
  readonly field: string;
  readonly actor: string | null;
  /** How many projects its stream watches. */
  readonly siblings: number;
  /** The last revision known; null until the first poll, for a watch from now on. */
  after: bigint | null;
  /** Whether the last poll left changes behind. */
  behind: boolean;
  /** When it was last answered, by `performance.now()`; null before the first time. */
  heardAt: number | null;
  /** Since when it has waited for its turn, by `performance.now()`. */
  since: number;
  /** Whether its project has changed since it was last asked for. */
  stale: boolean;
}

/** The stream that watches. */
export interface Watching {
  answer(watch: Watch, news: News): void;
  refuse(error: unknown): void;
}

/** What the database answered about one project to one actor. */
export interface Answer extends News {
  readonly earliest: bigint;
}

/** A verdict that was not OK: the actor may not enter. */
export interface Refused {
  readonly entered: string;
}

/** @throws Refusal INTERNAL when the rows are not this project's */
export const answerOf = (project: string, rows: readonly NewsRow[]): Answer | Refused => {
  const changes: ChangeRow[] = [];
  let feed: { readonly head: bigint; readonly earliest_revision: bigint } | null = null;
  for (const row of rows) {
    if (row.entered !== 'OK') return { entered: row.entered };
    if (row.project_id === null || !('head' in row)) continue;
    if (row.project_id !== project) {
      throw new Refusal('INTERNAL', 'a row of another project was about to be answered', { outcome: 'unknown' });
    }
    feed = row;
    if (row.revision !== null) changes.push(row);
  }
  if (feed === null) throw new Refusal('INTERNAL', 'a watched project was not answered');
  changes.sort((a, b) => Number(a.revision - b.revision));
  return { changes, revision: feed.head, earliest: feed.earliest_revision };
};

/** @throws Refusal when the watch may not go on: its actor may not enter, or its cursor lies outside of what is kept */
export const newsFor = (watch: Watch, answer: Answer | Refused): News => {
  const { project, after, field } = watch;
  if ('entered' in answer) throw refusalOf(reasonOf(watch, answer.entered), { project_id: project });
  if (after !== null && after < answer.earliest) throw compacted(answer.earliest);
  // Numbers that are still to come would be passed over in silence.
  if (after !== null && after > answer.revision) {
    throw invalidField(field, `the project has reached revision ${answer.revision}`);
  }
  return answer;
};

/** Why a watch ends: who has once entered has lost access in whatever way, unless it is the project that was deleted. */
const reasonOf = ({ heardAt }: Watch, entered: string): string =>
  heardAt === null || entered === 'PROJECT_DELETED' ? entered : 'PROJECT_NOT_FOUND';

/** The refusal of a cursor that is older than what is kept. */
export const compacted = (earliest: bigint): Refusal =>
  refusalOf('REVISION_COMPACTED', { earliest_revision: String(earliest) });
