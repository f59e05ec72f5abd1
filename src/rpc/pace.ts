/** What a message of a stream takes is paid for by a pause of so many times as long, while others call. */
const REST = 8;
/** The longest pause, in milliseconds: an export goes on, however slow its messages are. */
const MAX_REST_MS = 500;
/** After so long, in milliseconds, a message that is not made yet keeps nobody from making another. */
const STUCK_MS = 1000;

/** Makes a message of a stream when its turn has come. What makes it must not throw, but reject. */
export type Pace = <T>(make: () => Promise<T>) => Promise<T>;

/** A message that is being made: since when, and how many calls had come then. */
interface Making {
  readonly began: number;
  readonly before: number;
  readonly made: Promise<unknown>;
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

/**
 * Leaves room for short calls beside streams of large messages: the streams make theirs one after the other, and while
 * somebody else calls, most of the time is left to that.
 * @param calls how many short calls have come so far
 */
export const createPace = (calls: () => number): Pace => {
  let free: Promise<unknown> = Promise.resolve();

  const rest = async ({ began, before, made }: Making): Promise<void> => {
    await Promise.race([made.catch(() => {}), wait(STUCK_MS)]);
    if (calls() !== before) await wait(Math.min(REST * (performance.now() - began), MAX_REST_MS));
  };

  return (make) => {
    const making = free.then(() => ({ began: performance.now(), before: calls(), made: make() }));
    free = making.then(rest);
    return making.then(({ made }) => made);
  };
};
