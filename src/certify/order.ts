/** A call that took place at one moment between its begin and its end, at a state of its project. */
export interface Moment {
  /** By the clock; the end is Infinity for a write that nobody was told of. */
  readonly begin: number;
  readonly end: number;
  /** A write makes the revisions `from` to `to`; a read saw a state from revision `from` to `to`. */
  readonly write: boolean;
  readonly from: number;
  readonly to: number;
  /** The ledger's number of the call. */
  readonly call: number;
}

/** Two calls that no order fits: the first one had ended before the second one began, and shows a later state than it. */
export interface Clash {
  readonly before: Moment;
  readonly after: Moment;
  /** The revision that was there when `after` began. */
  readonly revision: number;
}

/** The latest state that must have been there when a call ended. */
const shownBy = ({ write, from, to }: Moment): number => (write ? to : from);

/** The latest state that may have been there when it began. */
const mostBefore = ({ write, from, to }: Moment): number => (write ? from - 1 : to);

/**
 * Finds whether one order of all calls of a project keeps to the clock: strict serialisability. The revisions order the
 * writes already, so one walk along the clock decides: what any call has shown that ended before another began must not be
 * later than all that the other one can have seen. When it never is, an order exists: each call at the earliest state that
 * it and those before it allow.
 * @param moments in the order of their begins
 */
export const clashesOf = (moments: readonly Moment[]): readonly Clash[] => {
  const ended = moments.filter(({ end }) => end !== Number.POSITIVE_INFINITY).sort((a, b) => a.end - b.end);
  const clashes: Clash[] = [];
  let done = 0;
  let latest: Moment | null = null;
  for (const moment of moments) {
    for (let next = ended[done]; next !== undefined && next.end < moment.begin; next = ended[done]) {
      if (latest === null || shownBy(next) > shownBy(latest)) latest = next;
      done += 1;
    }
    if (latest !== null && shownBy(latest) > mostBefore(moment)) {
      clashes.push({ before: latest, after: moment, revision: shownBy(latest) });
    }
  }
  return clashes;
};
