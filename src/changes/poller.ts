import type { Database } from '../db/pool.ts';
import { type Ask, createQueue } from './queue.ts';
import type { Follower } from './signals.ts';
import { type NewsRow, pollChanges } from './sql.ts';
import { type Answer, answerOf, newsFor, type Refused, type Watch } from './watch.ts';

export interface Poller extends Follower {
  /** Asks for a watch's next news, which is answered once: changes, or a sign of life when there is none for 10 s. */
  ask(watch: Watch): void;
  /** Stops asking. */
  forget(watch: Watch): void;
}

interface PollerOptions {
  /** How often to ask for a watch that nothing wakes, in milliseconds: while all changes are told of, */
  readonly liveMs?: number;
  /** and while they are not. */
  readonly pollMs?: number;
}

/** Whoever has lost access hears it at the next turn: well within the 15 s that are promised. */
const LIVE_MS = 5_000;
const POLL_MS = 500;
/** What a turn of one watch takes of every other's time, in milliseconds: 2000 turns a second, however many watch. */
const PACE_MS = 0.5;
/** After the last poll, in milliseconds, those whom changes wake wait for each other: one statement asks for all. */
const WAKE_MS = 20;
/** After so long without news a watch hears that there is none, in milliseconds, */
const HEARTBEAT_MS = 10_000;
/** or earlier, where its next turn would come later than this. */
const SILENCE_MS = 14_000;
/** How long a watch goes on without an answer of the database, in milliseconds. */
const PATIENCE_MS = 14_500;
const POLL_TIMEOUT_MS = 3_000;

/**
 * One poller for all watches of a process. It asks the database for a watch when its project is said to have changed, and in
 * turn, for what nobody has said, entering each project anew; one statement asks for many. A watch whose stream is still
 * sending is not asked for, so nothing piles up for a slow reader.
 */
export const createPoller = (db: Database, { liveMs = LIVE_MS, pollMs = POLL_MS }: PollerOptions = {}): Poller => {
  const queue = createQueue();
  let timer: NodeJS.Timeout | undefined;
  let timerAt = Number.POSITIVE_INFINITY;
  let polling = false;
  let polledAt = Number.NEGATIVE_INFINITY;
  let hurryAt = Number.POSITIVE_INFINITY;
  let nextTurnAt = 0;
  let live = false;
  let liveSince = Number.NEGATIVE_INFINITY;
  let failing = false;

  const intervalMs = (): number => (live && !failing ? liveMs : pollMs);

  /** When the next watch has its turn. */
  const turnAt = (): number => {
    const [first] = queue.waiting;
    if (first === undefined) return Number.POSITIVE_INFINITY;
    return Math.max(nextTurnAt, first.since <= liveSince ? 0 : first.since + intervalMs());
  };

  const schedule = (): void => {
    if (polling || (timer !== undefined && !queue.hurried)) return;
    const at = queue.hurried ? hurryAt : turnAt();
    if (at >= timerAt) return;
    clearTimeout(timer);
    timerAt = at;
    timer = setTimeout(() => void poll(), Math.max(0, at - performance.now()));
  };

  const stopTimer = (): void => {
    clearTimeout(timer);
    timer = undefined;
    timerAt = Number.POSITIVE_INFINITY;
  };

  const poll = async (): Promise<void> => {
    stopTimer();
    polling = true;
    polledAt = performance.now();
    const turns = polledAt >= nextTurnAt;
    const { asks, due } = queue.take(turns ? Math.max(polledAt - intervalMs(), liveSince) : Number.NEGATIVE_INFINITY);
    if (turns) nextTurnAt = polledAt + due * PACE_MS;
    hurryAt = queue.hurried ? 0 : Number.POSITIVE_INFINITY;
    if (asks.length > 0) await askDatabase(asks);
    polling = false;
    schedule();
  };

  const askDatabase = async (asks: readonly Ask[]): Promise<void> => {
    const params = {
      project: asks.map(({ project }) => project),
      actor: asks.map(({ actor }) => actor),
      after: asks.map(({ after }) => after),
      most: asks.map(({ most }) => most),
    };
    const asked = performance.now();
    try {
      const rows = await db.run(pollChanges, params, { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
      failing = false;
      const byPlace = Map.groupBy(rows, ({ place }) => Number(place));
      asks.forEach((ask, index) => {
        deliver(ask, byPlace.get(index + 1) ?? [], asked);
      });
    } catch (error) {
      failing = true;
      endWaiting(asks, error);
    }
  };

  const deliver = (ask: Ask, rows: readonly NewsRow[], asked: number): void => {
    let answer: Answer | Refused;
    try {
      answer = answerOf(ask.project, rows);
    } catch (error) {
      for (const watch of ask.watches) refuse(watch, error);
      return;
    }
    for (const watch of ask.watches) if (queue.waiting.has(watch)) deliverTo(watch, answer, ask.most, asked);
  };

  const deliverTo = (watch: Watch, answer: Answer | Refused, most: number, asked: number): void => {
    try {
      const news = newsFor(watch, answer);
      watch.behind = news.changes.length === most;
      watch.after = news.changes.at(-1)?.revision ?? watch.after ?? news.revision;
      if (news.changes.length === 0 && watch.heardAt !== null && asked - watch.heardAt < silenceMs()) return;
      watch.heardAt = performance.now();
      queue.settle(watch);
      watch.stream.answer(watch, news);
    } catch (error) {
      refuse(watch, error);
    }
  };

  /** How long a watch goes without a sign of life: it has its next turn within the time that is promised. */
  const silenceMs = (): number =>
    Math.min(HEARTBEAT_MS, SILENCE_MS - Math.max(intervalMs(), queue.waiting.size * PACE_MS));

  /** A moment without the database is no news; one that would outlast the next sign of life ends the streams. */
  const endWaiting = (asks: readonly Ask[], error: unknown): void => {
    const now = performance.now();
    for (const watch of asks.flatMap(({ watches }) => watches)) if (watch.heardAt === null) refuse(watch, error);
    for (const watch of queue.waiting) {
      if (watch.heardAt !== null && now - watch.heardAt >= PATIENCE_MS) refuse(watch, error);
    }
  };

  const refuse = (watch: Watch, error: unknown): void => {
    if (!queue.waiting.has(watch)) return;
    queue.settle(watch);
    watch.stream.refuse(error);
  };

  return {
    ask: (watch) => {
      queue.add(watch);
      if (watch.heardAt === null || watch.behind) hurryAt = 0;
      else if (watch.stale) hurryAt = Math.min(hurryAt, polledAt + WAKE_MS);
      schedule();
    },
    forget: (watch) => queue.forget(watch),
    wake: (project) => {
      if (!queue.wake(project)) return;
      hurryAt = Math.min(hurryAt, polledAt + WAKE_MS);
      schedule();
    },
    setLive: (now) => {
      if (now === live) return;
      live = now;
      if (live) liveSince = performance.now();
      stopTimer();
      schedule();
    },
  };
};
