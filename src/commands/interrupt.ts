import { constants } from 'node:os';

/** Further signals within so long, in milliseconds, are the same one: npm passes on what a terminal has sent to both. */
const SAME_MS = 500;

/**
 * Runs work that SIGINT, SIGTERM or SIGHUP aborts through the signal, and waits until it has cleaned up. A second one, half a
 * second later or more, ends the process at once, with 128 and the signal's number.
 * @throws what the work throws; after an interruption the signal's own reason
 */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let first: number | null = null;
  const interrupt = (name: NodeJS.Signals) => {
    first ??= performance.now();
    if (performance.now() - first >= SAME_MS) process.exit(128 + constants.signals[name]);
    controller.abort(new Error(`interrupted by ${name}`));
  };
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const name of names) process.on(name, interrupt);
  try {
    return await work(controller.signal);
  } finally {
    for (const name of names) process.off(name, interrupt);
  }
}
