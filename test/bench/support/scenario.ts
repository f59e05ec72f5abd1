import type { Drivers, Measured, Meter } from './measure.ts';
import type { Spread } from './statistics.ts';
import type { Target, TargetOptions } from './world.ts';

/** One figure, and what it must be. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  /** Between the rounds; null for what was measured once. */
  readonly spread: Spread | null;
  readonly unit: string;
  /** Null for what only informs. */
  readonly bound: Bound | null;
}

export type Bound = { readonly least: number } | { readonly most: number };

/** A point of a curve of latency over offered load. */
export interface CurvePoint {
  /** Calls a second. */
  readonly offered: number;
  /** Answered calls a second. */
  readonly goodput: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

export interface Result {
  readonly figures: readonly Figure[];
  readonly measured: readonly Measured[];
  readonly curve?: readonly CurvePoint[];
  /** What has ended the scenario before it had its figures. */
  readonly failure?: string;
}

/** What a scenario measures with. */
export interface Bench extends Meter {
  /** Of one measurement. */
  readonly seconds: number;
  /** How often what is compared is measured, forth and back. */
  readonly rounds: number;
  readonly signal: AbortSignal;
  /** Ends with the scenario, whatever becomes of it. */
  readonly opened: AsyncDisposableStack;
  /** Starts a server that ends with the scenario. */
  start(options: TargetOptions): Promise<Target>;
  /** For loads that are no work of their own. */
  readonly drivers: Drivers;
  /** Says on standard error what is going on. */
  tell(text: string): void;
}

/** One or several rows of the table of what the service must show. */
export interface Scenario {
  readonly name: string;
  /** One line, for the list of scenarios. */
  readonly about: string;
  run(bench: Bench): Promise<Result>;
}

/** A figure that comes from rounds. */
export const ratio = (name: string, spread: Spread, bound: Bound | null): Figure => ({
  name,
  value: spread.median,
  spread,
  unit: 'times',
  bound,
});

/** As in `GetVersion by 32 callers`. */
export const by = (work: string, callers: number): string =>
  `${work} by ${callers} ${callers === 1 ? 'caller' : 'callers'}`;

export const isMet = ({ value, bound }: Figure): boolean | null => {
  if (bound === null) return null;
  return 'least' in bound ? value >= bound.least : value <= bound.most;
};
