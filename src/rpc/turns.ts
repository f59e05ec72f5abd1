import { createFairQueue, type Share } from '../db/fair-queue.ts';
import { Refusal } from '../refusal.ts';

/** How many calls begin in one turn of the event loop: some 2 ms of work, */
const PER_TURN = 16;
/** and how many of one share, so that who floods leaves room in each turn for those who come meanwhile. */
const PER_SHARE = 8;
/** How many wait to begin: when it is full, who has more than its part of it has no further one let in. */
const MAX_WAITING = 4000;
/** How many wait at all, of however many shares. */
const MOST_WAITING = 4 * MAX_WAITING;

/** Lets calls begin a few at a time, each share in its turn. */
export interface Turns {
  /** How many wait. */
  readonly waiting: number;
  /**
   * Null when the caller may begin at once; else resolves when its turn has come.
   * @throws Refusal OVERLOADED when too many wait already
   */
  take(share: Share): Promise<void> | null;
}

/**
 * Spreads a burst of calls over turns of the event loop: a thousand requests may be read from a socket in one go, and whoever
 * else has sent something, such as a probe of the health, would wait until all of them have begun.
 */
export const createTurns = (): Turns => {
  const queue = createFairQueue<() => void>();
  let begun = 0;

  const nextTurn = () => {
    begun = 0;
    const most = Math.min(PER_TURN, PER_SHARE * queue.shares);
    while (begun < most) {
      const begin = queue.take();
      if (begin === undefined) break;
      begun += 1;
      begin();
    }
    if (begun > 0) setImmediate(nextTurn);
  };

  return {
    get waiting() {
      return queue.size;
    },
    take: (share) => {
      if (begun === 0) setImmediate(nextTurn);
      // One more counts as begun, so that there is a next turn.
      begun += 1;
      if (begun <= PER_TURN && queue.size === 0) return null;
      if (queue.ahead(share) >= MAX_WAITING || queue.size >= MOST_WAITING) {
        throw new Refusal('OVERLOADED', 'too many calls wait to begin; send the call again, a little later');
      }
      return new Promise((resolve) => queue.add(resolve, share));
    },
  };
};
