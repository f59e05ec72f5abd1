import type { SlowStatement } from '../db/observe.ts';
import { inTime } from '../in-time.ts';
import type { Logger } from '../log.ts';
import { traceIdsOf } from '../telemetry/spans.ts';
import type { Plans } from './plans.ts';

/** Lines in a second, at most; one more counts those left out. */
const MAX_LINES = 10;
const WINDOW_MS = 1_000;
/** How often a statement's plan is told at most, in milliseconds: it stays the same, and is long. */
const PLAN_EVERY_MS = 60_000;
/** How long a line waits for its plan, in milliseconds. */
const PLAN_PATIENCE_MS = 2_000;

interface SlowLogOptions {
  readonly log: Logger;
  readonly plans: Plans;
}

/** Puts slow statements on the log, with their plans and never with their values. */
export interface SlowLog {
  /** For an `Observer`: returns at once, and does not throw. */
  onSlow(slow: SlowStatement): void;
  /** Writes what is still to be written. */
  end(): Promise<void>;
}

/**
 * One line for each slow statement, but for floods: a database that is in trouble makes every statement slow, and no log
 * shall add to that.
 */
export const createSlowLog = ({ log, plans }: SlowLogOptions): SlowLog => {
  const told = new Map<string, number>();
  const writing = new Set<Promise<void>>();
  let lines = 0;
  let leftOut = 0;
  let window: NodeJS.Timeout | undefined;

  const turn = (): void => {
    clearTimeout(window);
    window = undefined;
    if (leftOut > 0) log.warn({ leftOut }, 'more statements were slow');
    lines = 0;
    leftOut = 0;
  };

  /** Whether the statement's plan is due, which it then is not again for a minute. */
  const takePlan = (name: string): boolean => {
    const now = performance.now();
    if (now - (told.get(name) ?? Number.NEGATIVE_INFINITY) < PLAN_EVERY_MS) return false;
    told.set(name, now);
    return true;
  };

  const write = async (slow: SlowStatement): Promise<void> => {
    const plan = takePlan(slow.name) ? await inTime(plans.of(slow.name), PLAN_PATIENCE_MS, null) : null;
    log.warn({ ...describe(slow), plan: plan?.text }, 'slow statement');
  };

  return {
    onSlow: (slow) => {
      window ??= setTimeout(turn, WINDOW_MS).unref();
      if (lines === MAX_LINES) {
        leftOut += 1;
        return;
      }
      lines += 1;
      const written = write(slow).finally(() => writing.delete(written));
      writing.add(written);
    },
    end: async () => {
      await Promise.all(writing);
      turn();
    },
  };
};

const rounded = (ms: number): number => Math.round(ms * 1000) / 1000;

const describe = ({ name, queueMs, databaseMs, error, asker }: SlowStatement) => ({
  statement: name,
  queueMs: rounded(queueMs),
  databaseMs: rounded(databaseMs),
  ...(error !== null && { error }),
  correlationId: asker.correlationId,
  ...(asker.trace && traceIdsOf(asker.trace)),
});
