/**
 * Runs work that SIGINT, SIGTERM or SIGHUP aborts through the signal, and waits until it has cleaned up.
 * @throws what the work throws; after an interruption the signal's own reason
 */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = (name: NodeJS.Signals) => controller.abort(new Error(`interrupted by ${name}`));
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const name of names) process.on(name, interrupt);
  try {
    return await work(controller.signal);
  } finally {
    for (const name of names) process.off(name, interrupt);
  }
}
