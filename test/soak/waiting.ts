import { setTimeout as sleep } from 'node:timers/promises';
import { CallError } from '../support/client.ts';
import { until } from '../support/until.ts';

/** Waits until a condition holds. @throws Error that says what did not come in time; the run's own reason when that ends */
export type Until = (condition: () => boolean | Promise<boolean>, what: string, withinMs?: number) => Promise<void>;

/** More than anything takes on a machine that does much else, in milliseconds. */
const PATIENCE_MS = 300_000;
/** Between two attempts of a call, in milliseconds. */
const REST_MS = 20;

/** `until` that ends with the run. */
export const untilOf =
  (signal: AbortSignal): Until =>
  (condition, what, withinMs = PATIENCE_MS) =>
    until(
      () => {
        signal.throwIfAborted();
        return condition();
      },
      what,
      withinMs,
    );

/** Makes a call, and makes it again while the service says that it may be. @throws CallError of any other kind, and after five minutes */
export const insist = async <T>(signal: AbortSignal, call: () => Promise<T>): Promise<T> => {
  for (const end = Date.now() + PATIENCE_MS; ; await sleep(REST_MS)) {
    signal.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      if (!isPassing(error) || Date.now() > end) throw error;
    }
  }
};

const UNAVAILABLE = 14;

/** What the service calls retryable, and what a transport says that has lost it. */
export const isPassing = (error: unknown): boolean =>
  error instanceof CallError && (error.retryable || error.code === UNAVAILABLE);
