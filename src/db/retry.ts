import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '../log.ts';
import { Refusal } from '../refusal.ts';
import { type RetryReason, retryReasonOf } from './errors.ts';
import type { Lane } from './slots.ts';

/** A statement that may have to be sent again. */
interface Repeated {
  /** Its name, for the log. */
  readonly statement: string;
  /** Whether it may run twice. */
  readonly harmless: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly correlationId?: string | undefined;
}

export interface RetryCounts extends Readonly<Record<RetryReason, number>> {
  /** Statements that were not sent again since too many had been. */
  readonly exhausted: number;
}

/** Sends again what has failed through no fault of its own. */
export interface Retries {
  readonly counts: RetryCounts;
  /**
   * Runs a statement until it is answered, fails for good, or was tried often enough. Each try waits for its own turn.
   * @param attempt runs it once; `tries` is 1 for the first time
   * @throws Refusal of the last try: of unknown outcome, too, when that of an earlier one is unknown
   */
  run<T>(repeated: Repeated, attempt: (tries: number) => Promise<T>): Promise<T>;
}

/** Sends everything once. */
export const ONCE: Retries = {
  counts: { contention: 0, connection: 0, exhausted: 0 },
  run: (_, attempt) => attempt(1),
};

/** Whether a statement may run twice: a read changes nothing, and a write with a request_id is known when it comes again. */
export const isHarmless = ({ lane }: { readonly lane: Lane }, params: object): boolean =>
  lane === 'read' || ('request_id' in params && params.request_id !== null);

const MAX_TRIES = 4;
/** Before the second try at most, in milliseconds; before each later one twice as long. */
const FIRST_PAUSE_MS = 50;
/** No try begins later than so after the first, in milliseconds: what lasts longer the caller is told, while it has time left. */
const PATIENCE_MS = 2_000;
/** Of the statements, so many may be sent again … */
const SHARE = 0.1;
/** … and so many in each second, however few there are. */
const PER_SECOND = 10;
/** What is not used is saved up to so many: a restart of the pooler ends what is under way on every connection. */
const SAVED = 100;

/** What keeps tries from becoming the load that makes them fail. */
const createBudget = (clock: () => number) => {
  let tokens = SAVED;
  let filled = clock();
  const add = (many: number) => {
    tokens = Math.min(SAVED, tokens + many);
  };
  return {
    earn: () => add(SHARE),
    /** Answers whether there was one left. */
    spend: (): boolean => {
      const now = clock();
      add(((now - filled) / 1000) * PER_SECOND);
      filled = now;
      if (tokens < 1) return false;
      tokens -= 1;
      return true;
    },
  };
};

/** Any time up to the longest one: who failed together does not come back together. */
const pauseBefore = (tries: number): number => Math.random() * FIRST_PAUSE_MS * 2 ** (tries - 2);

/** Nobody knows whether an earlier try is still to take effect, whatever became of the last one. */
const inDoubt = (refusal: Refusal): Refusal => {
  const { reason, message, metadata, fields, cause } = refusal;
  return new Refusal(reason, message, { metadata, fields, cause, outcome: 'unknown' });
};

/** @param clock the time, in milliseconds since any moment */
export const createRetries = (log: Pick<Logger, 'debug'>, clock = () => performance.now()): Retries => {
  const counts = { contention: 0, connection: 0, exhausted: 0 };
  const budget = createBudget(clock);

  /** Why a statement is sent again; null: it is not. */
  const reasonToRepeat = (refusal: Refusal, harmless: boolean): RetryReason | null => {
    const reason = retryReasonOf(refusal, harmless);
    if (reason === null || budget.spend()) return reason;
    counts.exhausted += 1;
    return null;
  };

  return {
    counts,
    run: async (repeated, attempt) => {
      const { statement, harmless, signal, correlationId } = repeated;
      budget.earn();
      const began = clock();
      let doubtful = false;
      for (let tries = 1; ; tries += 1) {
        try {
          return await attempt(tries);
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          const refusal: Refusal = doubtful ? inDoubt(error) : error;
          const isLast = tries === MAX_TRIES || clock() - began > PATIENCE_MS;
          const reason = isLast ? null : reasonToRepeat(error, harmless);
          if (reason === null) throw refusal;
          doubtful = refusal.outcome === 'unknown';
          counts[reason] += 1;
          log.debug({ statement, reason, tries, correlationId }, 'a statement is sent again');
          // A call that ends meanwhile is told so by the next try, which is not sent.
          await sleep(pauseBefore(tries + 1), undefined, signal && { signal }).catch(() => {});
        }
      }
    },
  };
};
