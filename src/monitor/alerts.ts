import type { Figures, Firing, Severity } from './report.ts';

/** The worst one first. */
export const SEVERITIES = ['critical', 'warning'] as const satisfies readonly Severity[];

/** When something is wrong: the one definition of an alert, for the monitor and for Prometheus. */
export interface AlertRule {
  /** In snake_case: what ALERTS, the metrics and the log call it. */
  readonly name: string;
  /** What is wrong while it fires, in a few words. */
  readonly summary: string;
  /** What it means, and what to do first. */
  readonly description: string;
  readonly unit: 'ratio' | 'seconds' | 'bytes' | 'count';
  /** Beyond its thresholds on this side it fires, not at them; below, for ratios alone. */
  readonly fires: 'above' | 'below';
  readonly thresholds: Readonly<Partial<Record<Severity, number>>>;
  /** How long a threshold has to be crossed before it fires, in seconds. */
  readonly forSeconds: number;
  /** Null: not known, which changes nothing. */
  readonly value: (figures: Figures) => number | null;
  /** The same value over the metrics of `/metrics`, for deploy/monitoring. */
  readonly promql: string;
}

/** Follows the figures, and tells which alerts fire. */
export interface Alerts {
  /** Those that are judged. */
  readonly rules: readonly AlertRule[];
  readonly firing: readonly Firing[];
  /** By rule's name, as the last figures had them: what was not known is absent. */
  readonly values: ReadonlyMap<string, number>;
  /** Judges new figures, and logs what starts, what ends and what is graver or less grave than before. */
  update(figures: Figures): readonly Firing[];
}

type Side = Pick<AlertRule, 'fires'>;

/** Whether a value is beyond a threshold. */
export const isBeyond = ({ fires }: Side, threshold: number, value: number): boolean =>
  fires === 'above' ? value > threshold : value < threshold;

/**
 * From where on a value is good again, so that one about the threshold does not make an alert come and go: a tenth less than
 * the threshold, or a fifth of what a ratio lacks there to be 1.
 */
export const clearsAt = ({ fires }: Side, threshold: number): number =>
  fires === 'above' ? threshold * 0.9 : threshold + (1 - threshold) / 5;

const MOST_CLEAR_SECONDS = 30;

/** How long a value has to be good before the alert ends: as long as a bad one has to last, 30 s at most. */
export const clearSeconds = ({ forSeconds }: Pick<AlertRule, 'forSeconds'>): number =>
  Math.min(forSeconds, MOST_CLEAR_SECONDS);
