import { DiagLogLevel, diag, logs } from '@opentelemetry/api';
import { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-grpc';
import { defaultResource } from '@opentelemetry/resources';
import { type IMetricReader, MetricReader, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';
import { NodeSDK } from '@opentelemetry/sdk-node';
import type { DestinationStream } from 'pino';
import type { Logger } from '../log.ts';
import { createDiagnostics } from './diagnostics.ts';
import { logRecords } from './log-records.ts';
import { createProducer, type MetricSources, RESOURCE } from './producer.ts';
import type { TelemetrySettings } from './settings.ts';
import { traceCalls } from './spans.ts';

/** How long what has not been sent yet may take at the end, in milliseconds. */
const FLUSH_MS = 3_000;

/** The SDK at work: there is one in a process. */
export interface Sdk {
  /** Takes the lines of the log; null where logs are not sent. */
  readonly lines: DestinationStream | null;
  /** What `/metrics` answers: the metrics of the SDK itself too. */
  readonly scrape: MetricReader;
  /** Where the SDK's own complaints go from now on. */
  reportTo(log: Logger): void;
  /** Whose metrics are sent. */
  follow(sources: MetricSources): void;
  /** Sends what is left; the process ends without what takes too long. */
  stop(): Promise<void>;
}

/** Collects when it is asked to. */
class ScrapeReader extends MetricReader {
  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

/** Starts the SDK, as the environment configures it. */
export const startSdk = (settings: TelemetrySettings): Sdk => {
  prepareEnvironment();
  const diagnostics = createDiagnostics();
  diag.setLogger(diagnostics.logger, DiagLogLevel.INFO);
  let sources: MetricSources | null = null;
  const producer = () => createProducer(() => sources);
  const scrape = new ScrapeReader({ metricProducers: [producer()] });
  const readers: IMetricReader[] = settings.scrapesOff === null ? [scrape] : [];
  if (settings.metrics) {
    readers.push(
      new PeriodicExportingMetricReader({
        exporter: new OTLPMetricExporter(),
        exportIntervalMillis: settings.metricIntervalMs,
        exportTimeoutMillis: settings.metricTimeoutMs,
        metricProducers: [producer()],
      }),
    );
  }
  const sdk = new NodeSDK({
    resource: defaultResource().merge(RESOURCE),
    metricReaders: readers,
    // Without any, the SDK reads from the environment where they go.
    ...(!settings.traces && { spanProcessors: [] }),
    ...(!settings.logs && { logRecordProcessors: [] }),
  });
  sdk.start();
  traceCalls();
  return {
    lines: settings.logs ? logRecords(logs.getLogger('jeex-persistence')) : null,
    scrape,
    reportTo: diagnostics.reportTo,
    follow: (followed) => {
      sources = followed;
    },
    stop: async () => {
      setTimeout(() => process.exit(), FLUSH_MS).unref();
      await sdk.shutdown().catch((error) => diag.warn('what was left has not been sent', error));
    },
  };
};

/** What the SDK reads there and this service sees otherwise. */
const prepareEnvironment = (): void => {
  process.env.OTEL_EXPORTER_OTLP_PROTOCOL ||= 'grpc';
  // Who looks at its metrics learns what it has dropped.
  process.env.OTEL_NODE_EXPERIMENTAL_SDK_METRICS ||= 'true';
  // It would set up a log of its own on standard output.
  delete process.env.OTEL_LOG_LEVEL;
};
