/** How long, in milliseconds, work may go on after its signal has aborted, to say itself how it ended. */
const GRACE_MS = 250;
/** The longest `setTimeout` waits: about 24 days. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/**
 * The work's own end, or the signal's reason when the work has not ended within 250 ms of the signal's abort: an answer is
 * then due even when the work hangs.
 */
export const bounded = <T>(work: Promise<T>, signal: AbortSignal): Promise<T> =>
  new Promise((resolve, reject) => {
    let grace: NodeJS.Timeout | undefined;
    const onAbort = () => {
      grace = setTimeout(() => reject(signal.reason), GRACE_MS);
    };
    const release = () => {
      clearTimeout(grace);
      signal.removeEventListener('abort', onAbort);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    work.then(
      (value) => {
        release();
        resolve(value);
      },
      (error) => {
        release();
        reject(error);
      },
    );
  });

/** Calls back at a time in milliseconds since the epoch, at once when it has passed; returns how to stop waiting. */
export const expireAt = (deadline: number, expire: () => void): (() => void) => {
  let timer: NodeJS.Timeout | undefined;
  const wait = () => {
    const delay = deadline - Date.now();
    if (delay <= 0) expire();
    else timer = setTimeout(wait, Math.min(delay, MAX_TIMEOUT_MS));
  };
  wait();
  return () => clearTimeout(timer);
};
