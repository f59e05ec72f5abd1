import { rowsPerPoll } from './changes.ts';
import type { Watch } from './watch.ts';

/** One question to the database, and the watches that wait for its answer. */
export interface Ask {
  readonly project: string;
  readonly actor: string | null;
  readonly after: bigint | null;
  /** How many changes to answer. */
  readonly most: number;
  readonly watches: Watch[];
}

/** Watches that one batch answers, and rows that it asks for, at most: what keeps the event loop for some 10 ms. */
const BATCH_WATCHES = 250;
const BATCH_ROWS = 5_000;

/** The watches of a process, and whom to ask for next. */
export interface Queue {
  /** Who waits for an answer, the one whose turn it is first. */
  readonly waiting: ReadonlySet<Watch>;
  /** Whether some of them shall not wait for their turn. */
  readonly hurried: boolean;
  /** Lets a watch wait; one that is new, behind or whose project has changed meanwhile is in a hurry. */
  add(watch: Watch): void;
  /** Lets a watch wait no longer; what changes in its project is still kept in mind for it. */
  settle(watch: Watch): void;
  forget(watch: Watch): void;
  /** Keeps in mind that a project has changed. @returns whether somebody watches it */
  wake(project: string): boolean;
  /**
   * The next batch: who is in a hurry, in order, and whoever waits since then (by `performance.now()`) or longer. All of them go on
   * waiting, in the last place.
   */
  take(since: number): Batch;
}

interface Batch {
  readonly asks: readonly Ask[];
  /** How many of its watches are there because it was their turn. */
  readonly due: number;
}

export const createQueue = (): Queue => {
  const waiting = new Set<Watch>();
  const urgent = new Set<Watch>();
  const byProject = new Map<string, Set<Watch>>();
  // Kept as projects until the next batch: a busy project may have thousands of watches.
  const woken = new Set<string>();

  const settle = (watch: Watch): void => {
    waiting.delete(watch);
    urgent.delete(watch);
  };

  const queueUp = (watch: Watch): void => {
    waiting.delete(watch);
    waiting.add(watch);
    watch.since = performance.now();
  };

  const wakeAll = (): void => {
    for (const watch of [...woken].flatMap((project) => [...(byProject.get(project) ?? [])])) {
      watch.stale = true;
      if (waiting.has(watch)) urgent.add(watch);
    }
    woken.clear();
  };

  const taken = (watch: Watch): void => {
    urgent.delete(watch);
    watch.stale = false;
    queueUp(watch);
  };

  return {
    waiting,
    get hurried() {
      return urgent.size > 0 || woken.size > 0;
    },
    add: (watch) => {
      const siblings = byProject.get(watch.project) ?? new Set();
      byProject.set(watch.project, siblings.add(watch));
      queueUp(watch);
      if (watch.heardAt === null || watch.behind || watch.stale) urgent.add(watch);
    },
    settle,
    forget: (watch) => {
      settle(watch);
      const siblings = byProject.get(watch.project);
      siblings?.delete(watch);
      if (siblings?.size === 0) byProject.delete(watch.project);
    },
    wake: (project) => {
      const watched = byProject.has(project);
      if (watched) woken.add(project);
      return watched;
    },
    take: (since) => {
      wakeAll();
      const batch = createBatch();
      for (const watch of urgent) {
        if (!batch.add(watch)) break;
        taken(watch);
      }
      let due = 0;
      for (const watch of waiting) {
        if (watch.since > since || !batch.add(watch)) break;
        taken(watch);
        due += 1;
      }
      return { asks: batch.asks(), due };
    },
  };
};

/** Puts watches together that one row answers: those of one project and actor that know the same. */
const createBatch = () => {
  const asks = new Map<string, Ask>();
  let watches = 0;
  let rows = 0;

  const askFor = ({ project, actor, after, behind, siblings }: Watch): Ask | null => {
    const most = rowsPerPoll(behind, siblings);
    const key = `${project} ${actor} ${after} ${most}`;
    const known = asks.get(key);
    if (known !== undefined) return known;
    if (rows + most > BATCH_ROWS) return null;
    rows += most;
    const ask: Ask = { project, actor, after, most, watches: [] };
    asks.set(key, ask);
    return ask;
  };

  return {
    asks: () => [...asks.values()],
    /** @returns false when there is no room for it */
    add: (watch: Watch): boolean => {
      const ask = watches === BATCH_WATCHES ? null : askFor(watch);
      ask?.watches.push(watch);
      watches += 1;
      return ask !== null;
    },
  };
};
