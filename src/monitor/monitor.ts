import { inTime } from '../in-time.ts';
import type { Gauge } from '../telemetry/gauge.ts';
import type { Alerts } from './alerts.ts';
import { alertGauges } from './evaluate.ts';
import { monitorGauges } from './gauges.ts';
import { createHistory, type Sample } from './history.ts';
import { createMeasurer, type MeasurerOptions } from './measure.ts';
import { countCalls } from './quantiles.ts';
import type { Figures, Report } from './report.ts';

/** What is older than this is measured anew for who asks, in milliseconds. */
const FRESH_MS = 1000;
/** How long who asks waits for a measurement, in milliseconds. */
const PATIENCE_MS = 50;
/** How often the loop looks whether readiness has turned, in milliseconds. */
const TICK_MS = 250;

interface MonitorOptions extends MeasurerOptions {
  readonly health: { readonly ready: boolean; readonly draining: boolean };
  readonly alerts: Alerts;
  readonly intervalSeconds: number;
}

/** The one source of what is told of the database and the way to it. */
export interface Monitor {
  /** As last measured; readiness and the service's pool as they are now. Asks nobody. */
  readonly report: Report;
  /** Measures anew where that was more than a second ago, and waits 50 ms for it at most. Never throws. */
  current(): Promise<Report>;
  /** The oldest first: one for each turn of the loop. */
  readonly samples: readonly Sample[];
  gauges(): readonly Gauge[];
  stop(): Promise<void>;
}

/** Measures once, and from then on in every interval, and at once when readiness turns. */
export const startMonitor = async (options: MonitorOptions): Promise<Monitor> => {
  const { measurements, health, alerts, db, intervalSeconds } = options;
  // A service that takes no calls any more says nothing of its database by that.
  const isReady = (): boolean => (health.draining ? figures.ready : health.ready);
  const measurer = createMeasurer(options);
  const history = createHistory(intervalSeconds);
  let figures: Figures = { ...measurer.first, ready: health.ready };
  let measuredAt = Number.NEGATIVE_INFINITY;
  let turnedAt = Number.NEGATIVE_INFINITY;
  let measuring: Promise<void> | null = null;
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;

  const measureOnce = async (): Promise<void> => {
    figures = { ...(await measurer.measure()), ready: isReady() };
    alerts.update(figures);
    measuredAt = performance.now();
    measuring = null;
  };

  /** Whoever asks at the same moment shares a measurement. */
  const measure = (): Promise<void> => {
    measuring ??= measureOnce();
    return measuring;
  };

  const isStale = (since: number, ms: number): boolean =>
    performance.now() - since >= ms || figures.ready !== isReady();

  const report = (): Report => ({ ...figures, ready: isReady(), pool: db.state(), alerts: alerts.firing });

  const turn = async (): Promise<void> => {
    turnedAt = performance.now();
    await measure();
    history.add(report(), countCalls(measurements.calls), performance.now() / 1000);
  };

  const tick = async (): Promise<void> => {
    if (isStale(turnedAt, intervalSeconds * 1000)) await turn();
    if (!stopped) timer = setTimeout(() => void tick(), TICK_MS).unref();
  };

  await tick();
  return {
    get report() {
      return report();
    },
    current: async () => {
      if (!stopped && isStale(measuredAt, FRESH_MS)) await inTime(measure(), PATIENCE_MS, undefined);
      return report();
    },
    samples: history.samples,
    gauges: () => [...monitorGauges(report(), measurements), ...alertGauges(alerts)],
    stop: async () => {
      stopped = true;
      clearTimeout(timer);
      await measuring;
    },
  };
};
