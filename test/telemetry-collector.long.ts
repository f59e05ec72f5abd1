import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { startBlackHole, useCollector } from './support/otlp.ts';
import { useTestDatabase } from './support/postgres.ts';
import { parseMetrics } from './support/prometheus.ts';
import { startTelling } from './support/telemetry.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();

/** Reads `/metrics`: the sum of a name's values, of an error's alone. */
const metricsOf = async (http: string) => {
  const samples = parseMetrics(await (await fetch(`http://${http}/metrics`)).text());
  return (name: string, error?: string): number =>
    samples
      .filter((sample) => sample.name === name && (error === undefined || sample.labels.error_type === error))
      .reduce((sum, { value }) => sum + value, 0);
};

const QUEUE_FULL = 'queue_full';
const [QUEUE, BATCH] = [64, 32];

describe('a collector that accepts and never answers', async () => {
  const hole = await startBlackHole();
  after(hole.stop);
  const service = await startTelling(db, {
    OTEL_EXPORTER_OTLP_ENDPOINT: hole.url,
    // Nothing but the service's own bound ends a batch.
    OTEL_EXPORTER_OTLP_TIMEOUT: '600000',
    OTEL_BSP_EXPORT_TIMEOUT: '600000',
    OTEL_BLRP_EXPORT_TIMEOUT: '600000',
    ...Object.fromEntries(
      ['BSP', 'BLRP'].flatMap((processor) => [
        [`OTEL_${processor}_MAX_QUEUE_SIZE`, String(QUEUE)],
        [`OTEL_${processor}_MAX_EXPORT_BATCH_SIZE`, String(BATCH)],
        // A batch leaves when it is whole.
        [`OTEL_${processor}_SCHEDULE_DELAY`, '600000'],
      ]),
    ),
    LOG_LEVEL: 'debug',
  });

  it('stops no call, and what is dropped is counted', async () => {
    const CALLS = 300;
    const AT_ONCE = 20;
    for (let called = 0; called < CALLS; called += AT_ONCE) {
      await Promise.all(Array.from({ length: AT_ONCE }, () => service.database.getServerInfo({})));
    }
    const metrics = await metricsOf(service.http);
    // Each has a span, and its statement one. One batch is on its way, and the queue is full.
    assert.equal(metrics('otel_sdk_processor_span_processed_total', QUEUE_FULL), 2 * CALLS - BATCH - QUEUE);
    assert.equal(metrics('otel_sdk_processor_span_queue_size'), QUEUE);
    const lines = metrics('otel_sdk_log_created_total');
    assert.equal(metrics('otel_sdk_processor_log_processed_total', QUEUE_FULL), lines - BATCH - QUEUE);
  });

  it('does not hold the service up when it ends', async () => {
    await service.stop();
    assert.equal(await service.exited, 0);
  });
});

describe('a collector that is not there', async () => {
  it('does not fill the log', async () => {
    const hole = await startBlackHole();
    hole.stop();
    const service = await startTelling(db, {
      OTEL_EXPORTER_OTLP_ENDPOINT: hole.url,
      OTEL_METRIC_EXPORT_INTERVAL: '20',
    });
    const complaints = () =>
      service
        .log()
        .split('\n')
        .filter((line) => line.includes('"msg":"telemetry"'));
    await until(() => complaints().length >= 5, 'it is told');
    const collections = async () => (await metricsOf(service.http))('otel_sdk_metric_reader_collection_duration_count');
    const before = await collections();
    await until(async () => (await collections()) > before + 20, 'many more have failed');
    assert.equal(complaints().length, 5);
    await service.stop();
  });
});

describe('what is not understood of OTEL_*', async () => {
  it('stops the start, naming every variable', async () => {
    const starting = startTelling(db, {
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318',
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf',
      OTEL_TRACES_EXPORTER: 'zipkin',
    });
    await assert.rejects(
      starting,
      /OTEL_TRACES_EXPORTER: expected otlp, none[\s\S]*OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc/,
    );
  });
});

describe('OTEL_SDK_DISABLED=true', async () => {
  it('switches everything off, and /metrics says so', async () => {
    const collector = await useCollector();
    const service = await startTelling(db, { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_SDK_DISABLED: 'true' });
    await service.database.getServerInfo({});
    const response = await fetch(`http://${service.http}/metrics`);
    assert.equal(response.status, 404);
    assert.match(((await response.json()) as { message: string }).message, /OTEL_SDK_DISABLED/);
    await service.stop();
    assert.deepEqual([collector.spans, collector.logs, collector.metrics.size], [[], [], 0]);
  });
});
