import { Refusal } from '../refusal.ts';
import { databaseRefusal, overloaded } from './errors.ts';
import { WaitedTooLong } from './slots.ts';

/** A statement that was cancelled ended for the reason its signal gives, with the outcome the database gives. */
const ended = (refusal: Refusal, signal: AbortSignal | undefined): Refusal => {
  const why: unknown = signal?.reason;
  return refusal.reason === 'DEADLINE' && why instanceof Refusal
    ? new Refusal(why.reason, why.message, { outcome: refusal.outcome, cause: refusal.cause })
    : refusal;
};

const beforeItsTurn = (cause: unknown): Refusal =>
  new Refusal('DEADLINE', 'the call ended before its turn came', { cause });

/** What a call is told whose signal has aborted before its statement was sent. */
export const leftEarly = (signal: AbortSignal | undefined): Refusal => ended(beforeItsTurn(signal?.reason), signal);

/**
 * What a statement failed with, as its caller is told.
 * @param sent whether it was handed to a connection
 */
export const refused = (error: unknown, statement: string, sent: boolean, signal: AbortSignal | undefined): Refusal => {
  if (error instanceof WaitedTooLong) return overloaded(error);
  // The signal's own reason is thrown before a statement is sent, also before it is sent again because it was rolled back.
  if (signal?.aborted && (!sent || error === signal.reason)) return ended(beforeItsTurn(error), signal);
  return ended(databaseRefusal(error, statement, sent), signal);
};
