import { PrometheusSerializer } from '@opentelemetry/exporter-prometheus';
import type { MetricProducer } from '@opentelemetry/sdk-metrics';
import { RESOURCE } from './producer.ts';

/** The text that Prometheus reads, in its format 0.0.4, of what a producer has at the moment. */
export const createExposition = ({ collect }: Pick<MetricProducer, 'collect'>): (() => Promise<string>) => {
  // Who scrapes names the target; that of the SDK's own resource is more than labels should hold.
  const serializer = new PrometheusSerializer(undefined, false, undefined, false, true);
  return async () => {
    const { resourceMetrics } = await collect();
    return serializer.serialize({ ...resourceMetrics, resource: RESOURCE });
  };
};
