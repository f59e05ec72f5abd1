import { type Faults, PROMISES, type Promised } from './faults.ts';
import type { Tally } from './tally.ts';

/** One promise, and how often it was broken. */
export interface Kept {
  readonly promise: Promised;
  readonly what: string;
  readonly faults: number;
  /** The first ones, a line each. */
  readonly told: readonly string[];
}

/** What a certification found. */
export interface Verdict {
  /** Whether every promise holds. */
  readonly ok: boolean;
  readonly seed: number;
  /** Of the work, without the checks after it. */
  readonly seconds: number;
  readonly calls: number;
  readonly acknowledged: number;
  readonly reads: number;
  /** Calls sent again after a failure, and calls sent twice on purpose. */
  readonly retries: number;
  readonly replays: number;
  /** Calls that had to be refused: strangers, forged leases, request ids used for something else. */
  readonly provoked: number;
  readonly events: number;
  readonly resumed: number;
  /** Changes in the records of all projects, each held against the ledger. */
  readonly changes: number;
  /** Failed calls by reason: no fault by themselves. */
  readonly failures: Readonly<Record<string, number>>;
  readonly promises: readonly Kept[];
  /** What could not be removed again. */
  readonly left: readonly string[];
}

/** What the whole run was, for the verdict. */
export interface Run {
  readonly seed: number;
  readonly seconds: number;
  readonly calls: number;
  readonly changes: number;
  readonly tally: Tally;
  readonly faults: Faults;
  readonly left: readonly string[];
}

export const verdictOf = ({ seed, seconds, calls, changes, tally, faults, left }: Run): Verdict => ({
  ok: faults.total === 0,
  seed,
  seconds: Math.round(seconds * 10) / 10,
  calls,
  acknowledged: tally.acknowledged,
  reads: tally.reads,
  retries: tally.retries,
  replays: tally.replays,
  provoked: tally.provoked,
  events: tally.events,
  resumed: tally.resumed,
  changes,
  failures: tally.failures,
  promises: (Object.keys(PROMISES) as Promised[]).map((promise) => ({
    promise,
    what: PROMISES[promise],
    faults: faults.count(promise),
    told: faults.told(promise),
  })),
  left,
});

const line = (text: string, figure: number | string): string => `  ${`${text} `.padEnd(58, '.')} ${figure}`;

const failuresOf = ({ failures }: Verdict): readonly string[] => {
  const each = Object.entries(failures);
  if (each.length === 0) return [line('failed calls', 0)];
  return ['  failed calls, which are no faults:', ...each.map(([reason, count]) => line(`  ${reason}`, count))];
};

const promiseLines = ({ what, faults, told }: Kept): readonly string[] => [
  line(what, faults),
  ...told.map((text) => `      ${text}`),
];

const conclusion = ({ ok, seed, promises }: Verdict): string => {
  if (ok) return `CERTIFIED: every promise holds (seed ${seed}).`;
  const broken = promises.filter(({ faults }) => faults > 0).length;
  return `NOT CERTIFIED: ${broken} of ${promises.length} promises broken (seed ${seed}).`;
};

/** The verdict on one page. */
export const pageOf = (verdict: Verdict): string =>
  [
    `The work, ${verdict.seconds} s`,
    line('calls', verdict.calls),
    line('writes acknowledged', verdict.acknowledged),
    line('reads answered', verdict.reads),
    line('calls sent again after a failure', verdict.retries),
    line('calls sent twice on purpose', verdict.replays),
    line('calls that had to be refused', verdict.provoked),
    line('changes recorded', verdict.changes),
    line('change events seen by watchers', verdict.events),
    line('watches cut and resumed', verdict.resumed),
    ...failuresOf(verdict),
    '',
    'The promises, and how often each was broken',
    ...verdict.promises.flatMap(promiseLines),
    '',
    conclusion(verdict),
    ...(verdict.left.length > 0 ? verdict.left : ['The scratch projects and users are removed.']),
  ].join('\n');
