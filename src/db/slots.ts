/** A place in a limited number of places, waited for in order. */
export interface Slots {
  /** How many wait. */
  readonly waiting: number;
  /**
   * Runs work as soon as a slot is free.
   * @throws the signal's reason when it aborts first: then the work was not begun
   */
  run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
}

/** A limit on what runs at once. Whoever waits can leave, and a slot is passed on whatever becomes of its work. */
export const createSlots = (limit: number): Slots => {
  const queue = new Set<() => void>();
  let free = limit;

  const enter = (signal: AbortSignal | undefined): Promise<void> | undefined => {
    signal?.throwIfAborted();
    if (free > 0) {
      free -= 1;
      return undefined;
    }
    return new Promise((resolve, reject) => {
      const leave = () => {
        queue.delete(proceed);
        reject(signal?.reason);
      };
      const proceed = () => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      signal?.addEventListener('abort', leave, { once: true });
      queue.add(proceed);
    });
  };

  const leave = () => {
    const [next] = queue;
    if (next === undefined) {
      free += 1;
      return;
    }
    queue.delete(next);
    next();
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
        leave();
      }
    },
  };
};
