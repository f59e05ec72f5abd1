type Environment = Readonly<Record<string, string | undefined>>;

/** What the standard's variables ask for (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). */
export interface TelemetrySettings {
  /** Which signals go to a collector, by OTLP. */
  readonly traces: boolean;
  readonly metrics: boolean;
  readonly logs: boolean;
  /** Why `/metrics` is not served; null when it is. */
  readonly scrapesOff: string | null;
  /** How often metrics are sent, in milliseconds. */
  readonly metricIntervalMs: number;
  /** How long sending them may take, in milliseconds. */
  readonly metricTimeoutMs: number;
  /** What is asked for and not understood, for a ConfigError. */
  readonly problems: readonly string[];
}

const EXPORTERS = {
  TRACES: ['otlp', 'none'],
  METRICS: ['otlp', 'prometheus', 'none'],
  LOGS: ['otlp', 'none'],
} as const;
type Signal = keyof typeof EXPORTERS;

const INTERVAL_MS = 60_000;
const TIMEOUT_MS = 30_000;

/**
 * Reads OTEL_*: nothing is sent unless an endpoint or an exporter is named. What concerns how it is sent or sampled, the SDK
 * reads by itself. An empty variable counts as unset.
 */
export const readTelemetry = (env: Environment): TelemetrySettings => {
  const disabled = env.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true';
  const problems: string[] = [];
  const exporters = (signal: Signal) => (disabled ? ['none'] : exportersOf(env, signal, problems));
  const metrics = exporters('METRICS');
  const metricIntervalMs = milliseconds(env.OTEL_METRIC_EXPORT_INTERVAL, INTERVAL_MS);
  return {
    traces: exporters('TRACES').includes('otlp'),
    metrics: metrics.includes('otlp'),
    logs: exporters('LOGS').includes('otlp'),
    scrapesOff: scrapesOff(env, disabled),
    metricIntervalMs,
    metricTimeoutMs: Math.min(metricIntervalMs, milliseconds(env.OTEL_METRIC_EXPORT_TIMEOUT, TIMEOUT_MS)),
    problems,
  };
};

/** The SDK would take OTLP where nothing is said, and send to this machine. */
const exportersOf = (env: Environment, signal: Signal, problems: string[]): readonly string[] => {
  const asked = words(env[`OTEL_${signal}_EXPORTER`]);
  const endpoint = env[`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`] || env.OTEL_EXPORTER_OTLP_ENDPOINT;
  const exporters = asked.length > 0 ? asked : [endpoint ? 'otlp' : 'none'];
  const known: readonly string[] = EXPORTERS[signal];
  if (!exporters.every((exporter) => known.includes(exporter))) {
    problems.push(`OTEL_${signal}_EXPORTER: expected ${known.join(', ')} (for example otlp)`);
  }
  if (exporters.includes('otlp')) problems.push(...protocolProblems(env, signal));
  return exporters.includes('none') ? ['none'] : exporters;
};

const protocolProblems = (env: Environment, signal: Signal): string[] => {
  const name = `OTEL_EXPORTER_OTLP_${signal}_PROTOCOL`;
  const [variable, protocol] = env[name]
    ? [name, env[name]]
    : ['OTEL_EXPORTER_OTLP_PROTOCOL', env.OTEL_EXPORTER_OTLP_PROTOCOL];
  if (!protocol || protocol.trim() === 'grpc') return [];
  return [`${variable}: expected grpc (for example grpc), the one protocol that this service sends telemetry by`];
};

const scrapesOff = (env: Environment, disabled: boolean): string | null => {
  if (disabled) return 'OTEL_SDK_DISABLED is true';
  return words(env.OTEL_METRICS_EXPORTER).includes('none') ? 'OTEL_METRICS_EXPORTER is none' : null;
};

const words = (text: string | undefined): string[] =>
  (text ?? '')
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');

const milliseconds = (text: string | undefined, usual: number): number => {
  const number = Number(text);
  return Number.isFinite(number) && number > 0 ? number : usual;
};
