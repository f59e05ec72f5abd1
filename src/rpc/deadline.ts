import { type Outcome, Refusal } from '../refusal.ts';
import type { Entry } from './entry.ts';
import { ClientGone } from './errors.ts';
import { BODY_TIMEOUT_MS, MAX_BODY_TIMEOUT_MS } from './limits.ts';
import type { Link } from './pipeline.ts';
import { expireAt } from './time.ts';

/** How long a unary call without a deadline may take, in milliseconds. */
const DEFAULT_TIMEOUT_MS = 10_000;

/** Transports end a call at its deadline too, by timers of their own that may be early by this much, in milliseconds. */
const TIMER_SLACK_MS = 20;

/** Until when a request has to be whole: its client's deadline, in both cases milliseconds since the epoch, or 10 s. */
export const bodyDeadline = (deadline: number | null): number => {
  const now = Date.now();
  return deadline === null ? now + BODY_TIMEOUT_MS : Math.min(deadline, now + MAX_BODY_TIMEOUT_MS);
};

/** Whether a transport that ends a call at this deadline, in milliseconds since the epoch, has done so. */
export const isPast = (deadline: number): boolean => Date.now() >= deadline - TIMER_SLACK_MS;

/** The refusal of a call whose deadline has passed. */
export const deadlinePassed = (outcome: Outcome): Refusal =>
  new Refusal('DEADLINE', 'the deadline has passed', { outcome });

/** Aborts the call's signal at its deadline, or when its client has gone. */
export const watch = (entry: Entry, link: Link) => {
  const { plan, controller } = entry;
  const deadline = link.deadline ?? (plan.streaming ? null : Date.now() + DEFAULT_TIMEOUT_MS);
  const expire = () => controller.abort(deadlinePassed('unknown'));
  link.onGone(() => {
    if (entry.settled) return;
    if (deadline !== null && isPast(deadline)) expire();
    else controller.abort(new ClientGone());
  });
  if (deadline !== null) entry.stopTimer = expireAt(deadline, expire);
  const expires = plan.streaming ? (entry.caller?.expires ?? null) : null;
  if (expires !== null && (deadline === null || expires < deadline)) {
    entry.stopTimer?.();
    entry.stopTimer = expireAt(expires, () => controller.abort(tokenEnded()));
  }
};

/** A stream does not outlive the token it was opened with. */
const tokenEnded = (): Refusal => new Refusal('UNAUTHENTICATED', 'the token has expired; call again with a new one');
