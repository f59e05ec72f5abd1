/** How many calls begin in one turn of the event loop: some 2 ms of work. */
const PER_TURN = 16;

/** Lets calls begin a few at a time. */
export interface Turns {
  /** Null when the caller may begin at once; else resolves when its turn has come, in order. */
  take(): Promise<void> | null;
}

/**
 * Spreads a burst of calls over turns of the event loop: a thousand requests may be read from a socket in one go, and whoever
 * else has sent something, such as a probe of the health, would wait until all of them have begun.
 */
export const createTurns = (): Turns => {
  const waiting = new Set<() => void>();
  let begun = 0;

  const nextTurn = () => {
    begun = 0;
    for (const begin of waiting) {
      if (begun === PER_TURN) break;
      waiting.delete(begin);
      begun += 1;
      begin();
    }
    if (begun > 0) setImmediate(nextTurn);
  };

  return {
    take: () => {
      if (begun === 0) setImmediate(nextTurn);
      if (begun === PER_TURN) return new Promise((resolve) => waiting.add(resolve));
      begun += 1;
      return null;
    },
  };
};
