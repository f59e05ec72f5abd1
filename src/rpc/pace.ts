import { createFairQueue, type Share } from '../db/fair-queue.ts';

/** What a message of a stream keeps the event loop busy is paid for by a pause of so many times as long, while others call. */
const REST = 8;
/** The longest pause, in milliseconds: streams go on, at ten messages a second at least, however busy the service is. */
const MAX_REST_MS = 100;
/** After so long, in milliseconds, a message that is not made yet keeps nobody from making another. */
const STUCK_MS = 1000;

/** Makes a message of a stream when its turn has come. What makes it must not throw, but reject. */
export type Pace = <T>(share: Share, make: () => Promise<T>) => Promise<T>;

/**
 * Leaves room for short calls beside streams of large messages: these make one at a time, callers and projects in turn, and
 * while somebody else calls, most of the time is left to that.
 * @param calls how many short calls have come so far
 */
export const createPace = (calls: () => number): Pace => {
  const queue = createFairQueue<() => Promise<void>>();
  let going = false;

  const go = async (): Promise<void> => {
    if (going) return;
    going = true;
    for (let next = queue.take(); next !== undefined; next = queue.take()) {
      const [before, began] = [calls(), performance.eventLoopUtilization()];
      await next();
      const busyMs = performance.eventLoopUtilization(began).active;
      if (calls() !== before) await wait(Math.min(REST * busyMs, MAX_REST_MS));
    }
    going = false;
  };

  return (share, make) =>
    new Promise((resolve, reject) => {
      const turn = () => {
        const made = make();
        made.then(resolve, reject);
        return settled(made, STUCK_MS);
      };
      queue.add(turn, share);
      void go();
    });
};

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

/** Resolves when work has ended in any way, or after so many milliseconds. */
const settled = (work: Promise<unknown>, ms: number): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms).unref();
    const end = () => {
      clearTimeout(timer);
      resolve();
    };
    work.then(end, end);
  });
