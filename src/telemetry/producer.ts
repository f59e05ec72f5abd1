import { type Attributes, type HrTime, ValueType } from '@opentelemetry/api';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AggregationTemporality,
  type DataPoint,
  DataPointType,
  type Histogram as HistogramValue,
  type MetricData,
  type MetricProducer,
  type ScopeMetrics,
} from '@opentelemetry/sdk-metrics';
import { VERSION } from '../version.ts';
import { type Gauge, type ReadGauges, SERVICE_POOL } from './gauge.ts';
import { BOUNDARIES, exportedCounts, type Histogram } from './histogram.ts';
import type { CallSeries, Measurements, StatementSeries } from './measurements.ts';
import { watchRuntime } from './runtime.ts';
import { isServerError, isSqlState } from './spans.ts';

/** Where the figures of a service come from. */
export interface MetricSources {
  readonly measurements: Measurements;
  /** `server.address`, `server.port` and `db.namespace` of the database. */
  readonly place: Attributes;
  /** What is read when somebody collects. */
  readonly gauges: ReadGauges;
}

/** What the metrics are about. */
export const RESOURCE = resourceFromAttributes({ 'service.name': 'jeex-persistence', 'service.version': VERSION });

/**
 * All metrics of a service, in the terms of the SDK: what the exporters take. Each of them has one of its own, since figures
 * of the event loop are of the time between two collections.
 * @param sources null while no service runs yet
 */
export const createProducer = (sources: () => MetricSources | null): MetricProducer => {
  let runtime: ReadGauges | null = null;
  return {
    collect: async () => {
      const from = sources();
      if (!from) return { resourceMetrics: { resource: RESOURCE, scopeMetrics: [] }, errors: [] };
      runtime ??= watchRuntime();
      return { resourceMetrics: { resource: RESOURCE, scopeMetrics: [readMetrics(from, runtime)] }, errors: [] };
    },
  };
};

const readMetrics = ({ measurements, place, gauges }: MetricSources, runtime: ReadGauges): ScopeMetrics => {
  const { since, calls, statements, turns, waits } = measurements;
  const times = { startTime: hrTime(since), endTime: hrTime(Date.now()) };
  return {
    scope: { name: 'jeex-persistence', version: VERSION },
    metrics: [
      histogram(
        'rpc.server.call.duration',
        'How long calls took, streams from their opening to their end.',
        [...calls.values()].map((series) => pointOf(times, callAttributes(series), series.durations)),
      ),
      histogram(
        'db.client.operation.duration',
        'How long statements took, their wait for a connection left out.',
        [...statements.values()].map((series) =>
          pointOf(times, { ...place, ...statementAttributes(series) }, series.durations),
        ),
      ),
      histogram('jeex.call.queue.duration', 'How long calls waited for their turn to begin.', [
        pointOf(times, {}, turns),
      ]),
      histogram('db.client.connection.wait_time', 'How long statements waited for a connection.', [
        pointOf(times, { 'db.client.connection.pool.name': SERVICE_POOL }, waits),
      ]),
      ...[...gauges(), ...runtime()].map((gauge) => toMetric(gauge, times)),
    ],
  };
};

type Times = Pick<DataPoint<unknown>, 'startTime' | 'endTime'>;

const hrTime = (ms: number): HrTime => [Math.trunc(ms / 1000), Math.round((ms % 1000) * 1e6)];

const callAttributes = ({ system, method, code }: CallSeries): Attributes => ({
  'rpc.system.name': system,
  'rpc.method': method,
  'rpc.response.status_code': code,
  ...(isServerError(code) && { 'error.type': code }),
});

const statementAttributes = ({ name, error }: StatementSeries): Attributes => ({
  'db.system.name': 'postgresql',
  'db.query.summary': name,
  ...(error !== null && { 'error.type': error }),
  ...(error !== null && isSqlState(error) && { 'db.response.status_code': error }),
});

const pointOf = (times: Times, attributes: Attributes, { counts, count, sum, min, max }: Histogram) => ({
  ...times,
  attributes,
  value: {
    buckets: { boundaries: [...BOUNDARIES], counts: exportedCounts(counts) },
    count,
    sum,
    ...(count > 0 && { min, max }),
  },
});

const about = (name: string, description: string, unit: string) => ({
  descriptor: { name, description, unit, valueType: ValueType.DOUBLE },
  aggregationTemporality: AggregationTemporality.CUMULATIVE,
});

const histogram = (name: string, description: string, dataPoints: DataPoint<HistogramValue>[]): MetricData => ({
  ...about(name, description, 's'),
  dataPointType: DataPointType.HISTOGRAM,
  dataPoints,
});

const toMetric = ({ name, description, unit, kind, points }: Gauge, times: Times): MetricData => {
  const dataPoints = points.map(({ value, attributes }) => ({ ...times, value, attributes: { ...attributes } }));
  const common = about(name, description, unit);
  if (kind === 'gauge') return { ...common, dataPointType: DataPointType.GAUGE, dataPoints };
  return { ...common, dataPointType: DataPointType.SUM, isMonotonic: kind === 'counter', dataPoints };
};
