import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLog } from '../src/log.ts';
import { createDiagnostics } from '../src/telemetry/diagnostics.ts';
import { readTelemetry } from '../src/telemetry/settings.ts';

const ENDPOINT = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://localhost:4317' };

/** The signals that are sent. */
const sent = (env: Readonly<Record<string, string>>): string[] => {
  const { traces, metrics, logs } = readTelemetry(env);
  return Object.entries({ traces, metrics, logs }).flatMap(([signal, on]) => (on ? [signal] : []));
};

describe('telemetry', () => {
  it('is off unless the environment asks for it', () => {
    assert.deepEqual(sent({}), []);
    assert.deepEqual(sent({ OTEL_SERVICE_NAME: 'x', OTEL_EXPORTER_OTLP_ENDPOINT: '', OTEL_TRACES_EXPORTER: '' }), []);
    assert.deepEqual(sent({ ...ENDPOINT, OTEL_SDK_DISABLED: 'true' }), []);
  });

  it('goes where an endpoint or an exporter is named, each signal by itself', () => {
    assert.deepEqual(sent(ENDPOINT), ['traces', 'metrics', 'logs']);
    assert.deepEqual(sent({ OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: 'http://localhost:1' }), ['logs']);
    assert.deepEqual(sent({ OTEL_TRACES_EXPORTER: 'otlp' }), ['traces']);
    assert.deepEqual(sent({ ...ENDPOINT, OTEL_LOGS_EXPORTER: 'none', OTEL_METRICS_EXPORTER: 'prometheus' }), [
      'traces',
    ]);
    assert.deepEqual(sent({ OTEL_METRICS_EXPORTER: 'otlp, prometheus' }), ['metrics']);
  });

  it('refuses what it does not speak, for signals that are on', () => {
    const problems = (env: Readonly<Record<string, string>>) =>
      readTelemetry(env).problems.map((each) => each.split(':')[0]);
    assert.deepEqual(problems({ ...ENDPOINT, OTEL_EXPORTER_OTLP_LOGS_PROTOCOL: 'http/json' }), [
      'OTEL_EXPORTER_OTLP_LOGS_PROTOCOL',
    ]);
    assert.deepEqual(problems({ ...ENDPOINT, OTEL_METRICS_EXPORTER: 'console' }), ['OTEL_METRICS_EXPORTER']);
    assert.deepEqual(problems({ OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' }), []);
    assert.deepEqual(problems({ ...ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }), []);
  });

  it('serves /metrics unless that is switched off', () => {
    assert.equal(readTelemetry({}).scrapesOff, null);
    assert.equal(readTelemetry({ OTEL_METRICS_EXPORTER: 'otlp' }).scrapesOff, null);
    assert.match(readTelemetry({ OTEL_METRICS_EXPORTER: 'none' }).scrapesOff ?? '', /OTEL_METRICS_EXPORTER/);
    assert.match(readTelemetry({ OTEL_SDK_DISABLED: 'true' }).scrapesOff ?? '', /OTEL_SDK_DISABLED/);
  });

  it('sends metrics as often as it is told, within the time of one interval', () => {
    const times = (env: Readonly<Record<string, string>>) => {
      const { metricIntervalMs, metricTimeoutMs } = readTelemetry(env);
      return [metricIntervalMs, metricTimeoutMs];
    };
    assert.deepEqual(times({}), [60_000, 30_000]);
    assert.deepEqual(times({ OTEL_METRIC_EXPORT_INTERVAL: '1000' }), [1000, 1000]);
    assert.deepEqual(times({ OTEL_METRIC_EXPORT_INTERVAL: '-1', OTEL_METRIC_EXPORT_TIMEOUT: '5000' }), [60_000, 5000]);
  });
});

describe('what the SDK says of itself', () => {
  const newDiagnostics = () => {
    const lines: { level: string; sdk: string; leftOut?: number }[] = [];
    const clock = { ms: 0 };
    const diagnostics = createDiagnostics(() => clock.ms);
    const log = createLog('warn', { write: (line) => lines.push(JSON.parse(line)) });
    return { ...diagnostics, clock, log, lines };
  };

  it('waits for the log, and says of an error no more than its message', () => {
    const { logger, reportTo, log, lines } = newDiagnostics();
    logger.error(JSON.stringify({ stack: 'at home', message: 'the "collector" is away', name: 'Error' }));
    logger.warn('a batch:', new Error('lost'), { spans: ['not shown'] });
    reportTo(log);
    assert.deepEqual(
      lines.map(({ level, sdk }) => [level, sdk]),
      [
        ['error', 'the \\"collector\\" is away'],
        ['warn', 'a batch: lost'],
      ],
    );
  });

  it('is five lines a minute, and how many were left out', () => {
    const { logger, reportTo, clock, log, lines } = newDiagnostics();
    reportTo(log);
    for (let i = 0; i < 100; i++) {
      logger.info('of no interest at this level');
      logger.error(`failure ${i}`);
    }
    assert.equal(lines.length, 5);
    clock.ms = 60_000;
    logger.error('again');
    assert.deepEqual([lines.length, lines[5]?.leftOut], [6, 95]);
  });
});
