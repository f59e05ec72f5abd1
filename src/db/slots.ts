import { createFairQueue, type FairQueue, type Share } from './fair-queue.ts';

/** What work does: reads and writes wait apart, so that neither keeps the other out. */
export type Lane = 'read' | 'write';

/** Who waits, on whose account, and until when. */
interface Waiter {
  readonly share: Share;
  readonly proceed: () => void;
}

interface Work<T> {
  readonly lane: Lane;
  readonly share: Share;
  readonly signal: AbortSignal | undefined;
  readonly work: () => Promise<T>;
}

/** A place in a limited number of places, waited for in turn. */
export interface Slots {
  /** How many wait. */
  readonly waiting: number;
  /**
   * Runs work as soon as a slot is free.
   * @throws the signal's reason when it aborts first, and `WaitedTooLong`: then the work was not begun
   */
  run<T>(work: Work<T>): Promise<T>;
  /** More are usable than before: lets in who waits for them. */
  widen(): void;
}

/** No slot was free in time, or none will be. */
export class WaitedTooLong extends Error {}

/** Of the slots, one in this many is left to the other lane. */
const LEFT_TO_OTHERS = 4;
/** How many wait in a lane: when it is full, who has more than its part of it has no further one let in. */
const MAX_WAITING = 1000;
/** How many wait in a lane at all, of however many shares. */
const MOST_WAITING = 4 * MAX_WAITING;
/** How much the newest work tells of how long work takes. */
const NEWEST = 0.05;

interface LaneState {
  readonly queue: FairQueue<Waiter>;
  readonly most: number;
  running: number;
  /** How long work takes, in milliseconds, the newest counting most. */
  meanMs: number;
}

/**
 * A limit on what runs at once. Whoever waits can leave, and a slot is passed on whatever becomes of its work. Shares have
 * their turn one after the other, and lanes too; one that waits for more than can be done in time is told so at once.
 * @param waitMs how long one waits at most, in milliseconds
 * @param usable how many of them may be in use now
 */
export const createSlots = (limit: number, waitMs = Number.POSITIVE_INFINITY, usable = () => limit): Slots => {
  const lane = (): LaneState => ({
    queue: createFairQueue(),
    most: Math.max(1, limit - Math.floor(limit / LEFT_TO_OTHERS)),
    running: 0,
    meanMs: 0,
  });
  const lanes: Readonly<Record<Lane, LaneState>> = { read: lane(), write: lane() };
  let free = limit;
  let last: Lane = 'write';

  /** @throws WaitedTooLong for who would wait in vain */
  const checkRoom = ({ queue, most, meanMs }: LaneState, share: Share): void => {
    const ahead = queue.ahead(share);
    if (ahead >= MAX_WAITING || queue.size >= MOST_WAITING) throw new WaitedTooLong(`${ahead} wait already`);
    const expectedMs = (ahead * meanMs) / most;
    if (expectedMs > waitMs) throw new WaitedTooLong(`${Math.round(expectedMs)} ms of work wait already`);
  };

  const wait = ({ queue }: LaneState, share: Share, signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      let patience: NodeJS.Timeout | undefined;
      const end = () => {
        clearTimeout(patience);
        signal?.removeEventListener('abort', leave);
      };
      const proceed = () => {
        end();
        resolve();
      };
      const waiter: Waiter = { share, proceed };
      const refuse = (reason: unknown) => {
        queue.remove(waiter, share);
        end();
        reject(reason);
      };
      const leave = () => refuse(signal?.reason);
      const giveUp = () => refuse(new WaitedTooLong(`no slot of ${limit} was free within ${waitMs} ms`));
      signal?.addEventListener('abort', leave, { once: true });
      if (Number.isFinite(waitMs)) patience = setTimeout(giveUp, waitMs);
      queue.add(waiter, share);
    });

  const isRoom = (): boolean => free > 0 && limit - free < usable();

  const occupy = (state: LaneState): void => {
    free -= 1;
    state.running += 1;
  };

  /** Lets in who is next, as long as there is room: of the lane that was not the last one first. */
  const passOn = (): void => {
    while (isRoom()) {
      const order: readonly Lane[] = last === 'read' ? ['write', 'read'] : ['read', 'write'];
      const next = order.find((name) => lanes[name].queue.size > 0 && lanes[name].running < lanes[name].most);
      if (next === undefined) return;
      last = next;
      occupy(lanes[next]);
      lanes[next].queue.take()?.proceed();
    }
  };

  return {
    get waiting() {
      return lanes.read.queue.size + lanes.write.queue.size;
    },
    run: async ({ lane: name, share, signal, work }) => {
      signal?.throwIfAborted();
      const state = lanes[name];
      if (isRoom() && state.running < state.most && state.queue.size === 0) {
        occupy(state);
      } else {
        checkRoom(state, share);
        await wait(state, share, signal);
      }
      const began = performance.now();
      try {
        return await work();
      } finally {
        state.meanMs += NEWEST * (performance.now() - began - state.meanMs);
        state.running -= 1;
        free += 1;
        passOn();
      }
    },
    widen: passOn,
  };
};
