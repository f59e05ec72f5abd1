import { Refusal } from '../refusal.ts';
import { noTiming } from '../telemetry/timing.ts';
import { type AnyRow, accept } from './accept.ts';
import { createFairQueue, type Share } from './fair-queue.ts';
import type { Asker } from './pool.ts';
import { leftEarly } from './refused.ts';
import type { Params, ParamTypes, Statement } from './statement.ts';

/** Runs a statement and answers its rows as the driver gave them. @throws Refusal */
export type RunRows = <T extends ParamTypes, R>(
  statement: Statement<T, R>,
  params: Params<T>,
  asker: Asker,
  /** Since when it waits, by `performance.now()`; without it, since now. */
  asked?: number,
) => Promise<readonly AnyRow[]>;

/** Point reads, of which those that wait at the same moment share a statement. */
export interface Coalescer {
  /** How many wait to be sent. */
  readonly waiting: number;
  /** @throws Refusal as the statement alone would; the signal's reason as a refusal when it aborts first */
  run<T extends ParamTypes, R>(statement: Statement<T, R>, params: Params<T>, asker: Asker): Promise<R[]>;
}

/** Askers of one statement, at most: PostgreSQL's work on them is what the first of them waits for. */
const MAX_TOGETHER = 16;
/** Statements of one kind that run at once; while they do, those who come gather for the next one. */
const MAX_RUNNING = 2;
/** After so long, in milliseconds, a statement that has not answered keeps nobody from sending another. */
const STUCK_MS = 50;

type AnyParams = Readonly<Record<string, unknown>>;

interface Waiter {
  readonly params: AnyParams;
  readonly asker: Asker;
  /** When it asked, by `performance.now()`. */
  readonly asked: number;
  readonly answer: (rows: readonly unknown[]) => void;
  readonly refuse: (error: unknown) => void;
  readonly onAbort: () => void;
  /** The statement it shares; null while it waits. */
  together: Together | null;
}

/** A statement that several share: cancelled when the last of them has gone. */
interface Together {
  readonly controller: AbortController;
  remaining: number;
}

/**
 * Calls of one kind that wait at the same moment share one statement, not a scope: each has its own entry. Alone a call is
 * sent at once; what is read from the sockets in one go is sent together. An entry that fails fails alone, one whose caller
 * has gone is not waited for.
 */
export const createCoalescer = (runRows: RunRows): Coalescer => {
  const lines = new Map<string, ReturnType<typeof createLine>>();
  return {
    get waiting() {
      return [...lines.values()].reduce((sum, line) => sum + line.waiting, 0);
    },
    run: <T extends ParamTypes, R>(statement: Statement<T, R>, params: Params<T>, asker: Asker) => {
      let line = lines.get(statement.name);
      if (!line) {
        line = createLine(statement as unknown as Statement<never, unknown>, runRows);
        lines.set(statement.name, line);
      }
      return line.ask(params as AnyParams, asker) as Promise<R[]>;
    },
  };
};

/** The askers of one statement. */
const createLine = (statement: Statement<never, unknown>, runRows: RunRows) => {
  const queue = createFairQueue<Waiter>();
  /** The statements that run, the oldest first, but for those that are stuck. */
  const running = new Set<{ readonly began: number }>();
  let scheduled = false;
  let impatient: NodeJS.Timeout | undefined;

  const schedule = () => {
    if (scheduled || queue.size === 0) return;
    if (running.size >= MAX_RUNNING) return waitForOldest();
    scheduled = true;
    // Behind what this turn of the event loop has read: no later than a call alone would be sent.
    setImmediate(() => {
      scheduled = false;
      while (running.size < MAX_RUNNING && queue.size > 0) start();
    });
  };

  const waitForOldest = () => {
    const [oldest] = running;
    if (impatient || !oldest) return;
    const free = () => {
      impatient = undefined;
      const stuck = performance.now() - STUCK_MS;
      for (const one of running) if (one.began <= stuck) running.delete(one);
      schedule();
    };
    impatient = setTimeout(free, Math.max(1, oldest.began + STUCK_MS - performance.now()));
  };

  const start = () => {
    const members: Waiter[] = [];
    while (members.length < MAX_TOGETHER) {
      const next = queue.take();
      if (next === undefined) break;
      members.push(next);
    }
    const one = { began: performance.now() };
    running.add(one);
    const [only] = members;
    const served = only && members.length === 1 ? serveAlone(only) : serveTogether(members);
    served.finally(() => {
      running.delete(one);
      schedule();
    });
  };

  const settle = (waiter: Waiter, rows: () => readonly unknown[]) => {
    waiter.asker.signal?.removeEventListener('abort', waiter.onAbort);
    try {
      waiter.answer(rows());
    } catch (error) {
      waiter.refuse(error);
    }
  };

  const refuse = (waiter: Waiter, error: unknown) =>
    settle(waiter, () => {
      throw error;
    });

  const serveAlone = async (waiter: Waiter): Promise<void> => {
    const { params, asker, asked } = waiter;
    asker.signal?.removeEventListener('abort', waiter.onAbort);
    try {
      const rows = await runRows(statement, params as never, asker, asked);
      settle(waiter, () => accept(statement, params as never, rows));
    } catch (error) {
      refuse(waiter, error);
    }
  };

  const serveTogether = async (members: readonly Waiter[]): Promise<void> => {
    const together: Together = { controller: new AbortController(), remaining: members.length };
    for (const member of members) member.together = together;
    const timing = noTiming();
    const sharers = members.map(({ asker }) => asker);
    const asker: Asker = { signal: together.controller.signal, timing, sharers };
    try {
      const shared = statement.shared as NonNullable<typeof statement.shared>;
      const rows = await runRows(shared, columnsOf(members), asker, members[0]?.asked);
      tellTiming(members, timing.databaseMs);
      const places = byPlace(rows, members.length);
      await Promise.all(members.map((member, index) => deliver(member, places[index] ?? [])));
    } catch (error) {
      // What PostgreSQL refuses for one entry it refuses for all, and only the one is to hear of it.
      const isOnes = error instanceof Refusal && ONE_ENTRYS.has(error.reason);
      await Promise.all(members.map((member) => (isOnes ? serveAlone(member) : refuse(member, error))));
    }
  };

  const deliver = (member: Waiter, rows: readonly AnyRow[]): Promise<void> | void => {
    if (rows.some(({ apart }) => apart === true)) return serveAlone(member);
    settle(member, () => accept(statement, member.params as never, rows));
  };

  const columnsOf = (members: readonly Waiter[]) =>
    Object.fromEntries(
      Object.keys(statement.params).map((name) => [name, members.map(({ params }) => params[name])]),
    ) as never;

  return {
    get waiting() {
      return queue.size;
    },
    ask: (params: AnyParams, asker: Asker): Promise<readonly unknown[]> =>
      new Promise((answer, reject) => {
        const { signal } = asker;
        const share: Share = asker;
        if (signal?.aborted) return reject(leftEarly(signal));
        const onAbort = () => {
          queue.remove(waiter, share);
          reject(leftEarly(signal));
          const { together } = waiter;
          if (together === null) return;
          together.remaining -= 1;
          if (together.remaining === 0) together.controller.abort(signal?.reason);
        };
        const waiter: Waiter = {
          params,
          asker,
          asked: performance.now(),
          answer,
          refuse: reject,
          onAbort,
          together: null,
        };
        signal?.addEventListener('abort', onAbort, { once: true });
        queue.add(waiter, share);
        schedule();
      }),
  };
};

/** Reasons for which a statement fails because of one of its entries. */
const ONE_ENTRYS: ReadonlySet<string> = new Set(['INTERNAL', 'INVALID_FIELD']);

/** What its share of the statement took each caller. */
const tellTiming = (members: readonly Waiter[], databaseMs: number): void => {
  const now = performance.now();
  for (const { asker, asked } of members) {
    if (!asker.timing) continue;
    asker.timing.databaseMs += databaseMs;
    asker.timing.queueMs += Math.max(0, now - asked - databaseMs);
  }
};

const byPlace = (rows: readonly AnyRow[], askers: number): readonly AnyRow[][] => {
  const places: AnyRow[][] = Array.from({ length: askers }, () => []);
  for (const row of rows) places[Number(row.place) - 1]?.push(row);
  return places;
};
