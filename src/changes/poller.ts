import type { Database } from '../db/pool.ts';
import { invalidField, Refusal, refusalOf } from '../refusal.ts';
import { rowsPerPoll } from './changes.ts';
import { type ChangeRow, type NewsRow, pollChanges } from './sql.ts';

/** What became of one watched project since it was last asked for: changes in order, or that there are none. */
export interface News {
  readonly changes: readonly ChangeRow[];
  /** The project's revision, when all changes up to it are known. */
  readonly revision: bigint;
}

/** One project that one stream watches. */
export interface Watch {
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
  readonly answer: (news: News) => void;
  readonly refuse: (error: unknown) => void;
}

export interface Poller {
  /** Asks for a watch's next news, which is answered once: changes, or a sign of life when there is none for 10 s. */
  ask(watch: Watch): void;
  /** Stops asking. */
  forget(watch: Watch): void;
}

const INTERVAL_MS = 500;
/** After so long without news a watch hears that there is none: well within the 15 s that are promised. */
const HEARTBEAT_MS = 10_000;
const POLL_TIMEOUT_MS = 3_000;
/** Watches and rows that one statement asks for, at most. */
const BATCH_WATCHES = 500;
const BATCH_ROWS = 5_000;

/**
 * One poller for all watches of a process: each tick it asks the database once for the news of every waiting watch, entering
 * each project anew, so that an actor who has lost access hears it at the next tick. A watch whose stream is still sending
 * is not asked for, so nothing piles up for a slow reader.
 */
export const createPoller = (db: Database): Poller => {
  const waiting = new Set<Watch>();
  const urgent = new Set<Watch>();
  let timer: NodeJS.Timeout | undefined;
  let polling = false;
  let tickAt = 0;

  const schedule = () => {
    clearTimeout(timer);
    if (polling || waiting.size === 0) return;
    timer = setTimeout(() => void poll(), urgent.size > 0 ? 0 : Math.max(0, tickAt - performance.now()));
  };

  const poll = async () => {
    const due = performance.now() >= tickAt ? waiting : urgent;
    if (due === waiting) tickAt = performance.now() + INTERVAL_MS;
    const batches = toBatches(due);
    urgent.clear();
    polling = true;
    for (const batch of batches) await pollBatch(batch.filter((watch) => waiting.has(watch)));
    polling = false;
    schedule();
  };

  const settle = (watch: Watch, act: () => void) => {
    waiting.delete(watch);
    urgent.delete(watch);
    act();
  };

  const pollBatch = async (batch: readonly Watch[]) => {
    if (batch.length === 0) return;
    const params = {
      project: batch.map(({ project }) => project),
      actor: batch.map(({ actor }) => actor),
      after: batch.map(({ after }) => after),
      most: batch.map((watch) => rowsPerPoll(watch.behind, watch.siblings)),
    };
    const asked = performance.now();
    try {
      const rows = await db.run(pollChanges, params, { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
      const byPlace = Map.groupBy(rows, ({ place }) => Number(place));
      batch.forEach((watch, index) => {
        if (waiting.has(watch)) deliver(watch, byPlace.get(index + 1) ?? [], params.most[index] as number, asked);
      });
    } catch (error) {
      // A moment without the database is no news; one that would outlast the next sign of life ends the stream.
      for (const watch of batch) {
        const patient = watch.heardAt !== null && performance.now() - watch.heardAt < HEARTBEAT_MS;
        if (waiting.has(watch) && !patient) settle(watch, () => watch.refuse(error));
      }
    }
  };

  const deliver = (watch: Watch, rows: readonly NewsRow[], most: number, asked: number) => {
    try {
      const news = newsOf(watch, rows);
      const silent = watch.heardAt !== null && asked - watch.heardAt < HEARTBEAT_MS;
      watch.behind = news.changes.length === most;
      watch.after = news.changes.at(-1)?.revision ?? watch.after ?? news.revision;
      if (news.changes.length === 0 && silent) return;
      watch.heardAt = performance.now();
      settle(watch, () => watch.answer(news));
    } catch (error) {
      settle(watch, () => watch.refuse(error));
    }
  };

  return {
    ask: (watch) => {
      waiting.add(watch);
      if (watch.heardAt === null || watch.behind) urgent.add(watch);
      schedule();
    },
    forget: (watch) => settle(watch, schedule),
  };
};

/** Watches in groups that one statement asks for. */
const toBatches = (watches: Iterable<Watch>): Watch[][] => {
  const batches: Watch[][] = [];
  let rows = Number.POSITIVE_INFINITY;
  for (const watch of watches) {
    rows += rowsPerPoll(watch.behind, watch.siblings);
    if (rows > BATCH_ROWS || (batches.at(-1)?.length ?? 0) === BATCH_WATCHES) {
      batches.push([]);
      rows = rowsPerPoll(watch.behind, watch.siblings);
    }
    batches.at(-1)?.push(watch);
  }
  return batches;
};

/** @throws Refusal when the watch may not go on: its actor may not enter, or its cursor lies outside of what is kept */
const newsOf = (watch: Watch, rows: readonly NewsRow[]): News => {
  const { project, after, field } = watch;
  const changes: ChangeRow[] = [];
  let revision: bigint | null = null;
  for (const row of rows) {
    if (row.entered !== 'OK') throw refusalOf(reasonOf(watch, row.entered), { project_id: project });
    if (row.project_id === null || !('head' in row)) continue;
    if (row.project_id !== project) {
      throw new Refusal('INTERNAL', 'a row of another project was about to be answered', { outcome: 'unknown' });
    }
    if (after !== null && after < row.earliest_revision) throw compacted(row.earliest_revision);
    // Numbers that are still to come would be passed over in silence.
    if (after !== null && after > row.head) throw invalidField(field, `the project has reached revision ${row.head}`);
    revision = row.head;
    if (row.revision !== null) changes.push(row);
  }
  if (revision === null) throw new Refusal('INTERNAL', 'a watched project was not answered');
  return { changes: changes.sort((a, b) => Number(a.revision - b.revision)), revision };
};

/** Why a watch ends: who has once entered has lost access in whatever way, unless it is the project that was deleted. */
const reasonOf = ({ heardAt }: Watch, entered: string): string =>
  heardAt === null || entered === 'PROJECT_DELETED' ? entered : 'PROJECT_NOT_FOUND';

/** The refusal of a cursor that is older than what is kept. */
export const compacted = (earliest: bigint): Refusal =>
  refusalOf('REVISION_COMPACTED', { earliest_revision: String(earliest) });
