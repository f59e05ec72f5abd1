/** A place in a limited number of places, waited for in order. */
export interface Slots {
  /** How many wait. */
  readonly waiting: number;
  /**
   * Runs work as soon as a slot is free.
   * @throws the signal's reason when it aborts first, and `WaitedTooLong`: then the work was not begun
   */
  run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
}

/** No slot was free in time. */
export class WaitedTooLong extends Error {}

/**
 * A limit on what runs at once. Whoever waits can leave, and a slot is passed on whatever becomes of its work.
 * @param waitMs how long one waits at most, in milliseconds
 */
export const createSlots = (limit: number, waitMs = Number.POSITIVE_INFINITY): Slots => {
  const queue = new Set<() => void>();
  let free = limit;

  const wait = (signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      let patience: NodeJS.Timeout | undefined;
      const stopWaiting = () => {
        queue.delete(proceed);
        clearTimeout(patience);
        signal?.removeEventListener('abort', leave);
      };
      const proceed = () => {
        stopWaiting();
        resolve();
      };
      const leave = () => {
        stopWaiting();
        reject(signal?.reason);
      };
      const giveUp = () => {
        stopWaiting();
        reject(new WaitedTooLong(`no slot of ${limit} was free within ${waitMs} ms`));
      };
      signal?.addEventListener('abort', leave, { once: true });
      if (Number.isFinite(waitMs)) patience = setTimeout(giveUp, waitMs);
      queue.add(proceed);
    });

  const enter = (signal: AbortSignal | undefined): Promise<void> | undefined => {
    signal?.throwIfAborted();
    if (free === 0) return wait(signal);
    free -= 1;
    return undefined;
  };

  const passOn = () => {
    const [next] = queue;
    if (next) next();
    else free += 1;
  };

  return {
    get waiting() {
      return queue.size;
    },
    run: async (work, signal) => {
      await enter(signal);
      try {
        return await work();
      } finally {
        passOn();
      }
    },
  };
};
