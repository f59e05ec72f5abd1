import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { SeverityNumber, SpanKind, SpanStatusCode } from '@opentelemetry/api';
import * as stable from '@opentelemetry/semantic-conventions';
import * as incubating from '@opentelemetry/semantic-conventions/incubating';
import { BOUNDARIES } from '../src/telemetry/histogram.ts';
import { VERSION } from '../src/version.ts';
import { type ReceivedMetric, type ReceivedSpan, useCollector } from './support/otlp.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';
import { newProject } from './support/service.ts';
import { newParent, startTelling, traceparent } from './support/telemetry.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();
const APPEND = 'jeex.persistence.v1.DocumentService/AppendVersion';

describe('a service whose telemetry goes to a collector', async () => {
  const collector = await useCollector();
  const service = await startTelling(db, { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, LOG_LEVEL: 'debug' });
  const { projectId, owner } = await newProject(service);
  const parent = newParent();
  const correlationId = randomUUID();
  const document = { projectId, documentType: 'idea', content: 'a secret idea' };
  await service.documents.appendVersion(document, { actor: owner, correlationId, headers: traceparent(parent) });
  const ofTrace = (traceId: string) => collector.spans.filter((span) => span.traceId === traceId);
  const spanNamed = (name: string): ReceivedSpan => {
    const span = ofTrace(parent.traceId).find((each) => each.name === name);
    assert.ok(span, `no span ${name}`);
    return span;
  };
  const post = (method: string, request: object, headers: Readonly<Record<string, string>>) =>
    fetch(`http://${service.http}/jeex.persistence.v1.${method}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(request),
    });
  const metric = (name: string): ReceivedMetric => {
    const found = collector.metrics.get(name);
    assert.ok(found, `no metric ${name}`);
    return found;
  };
  await until(() => ofTrace(parent.traceId).length >= 2, 'the spans have arrived');
  await until(
    () => collector.logs.some(({ attributes }) => attributes['jeex.correlation_id'] === correlationId),
    'the log line has arrived',
  );
  await until(
    () =>
      collector.metrics
        .get(stable.METRIC_RPC_SERVER_CALL_DURATION)
        ?.points.some(({ attributes }) => attributes[stable.ATTR_RPC_METHOD] === APPEND) ?? false,
    'metrics of the call have arrived',
  );

  it('says of itself what it is', () => {
    assert.equal(collector.resource[stable.ATTR_SERVICE_NAME], 'jeex-persistence');
    assert.equal(collector.resource[stable.ATTR_SERVICE_VERSION], VERSION);
  });

  it('puts a call below its caller’s span, and the statement below the call’s, without values', () => {
    assert.equal(ofTrace(parent.traceId).length, 2, 'one statement, one call');
    const call = spanNamed(APPEND);
    assert.deepEqual(
      [call.parentId, call.kind, call.status],
      [parent.spanId, SpanKind.SERVER + 1, SpanStatusCode.UNSET],
    );
    assert.deepEqual(call.attributes, {
      [stable.ATTR_RPC_SYSTEM_NAME]: stable.RPC_SYSTEM_NAME_VALUE_GRPC,
      [stable.ATTR_RPC_METHOD]: APPEND,
      [incubating.ATTR_RPC_RESPONSE_STATUS_CODE]: 'OK',
      'jeex.correlation_id': correlationId,
    });
    const { name, parentId, kind, attributes } =
      ofTrace(parent.traceId).find(({ spanId }) => spanId !== call.spanId) ?? call;
    assert.deepEqual([parentId, kind], [call.spanId, SpanKind.CLIENT + 1]);
    const { hostname, port, pathname } = new URL(db.appUrl);
    assert.deepEqual(attributes, {
      [stable.ATTR_DB_SYSTEM_NAME]: stable.DB_SYSTEM_NAME_VALUE_POSTGRESQL,
      [stable.ATTR_DB_QUERY_SUMMARY]: name,
      [stable.ATTR_DB_NAMESPACE]: pathname.slice(1),
      [stable.ATTR_SERVER_ADDRESS]: hostname,
      [stable.ATTR_SERVER_PORT]: Number(port),
    });
    assert.doesNotMatch(JSON.stringify(ofTrace(parent.traceId)), /secret/);
  });

  it('puts the correlation id on the log line, with trace and span, and into the change', async () => {
    const line = collector.logs.find(({ attributes }) => attributes['jeex.correlation_id'] === correlationId);
    const { traceId, spanId } = spanNamed(APPEND);
    assert.deepEqual(
      [line?.traceId, line?.spanId, line?.body, line?.severity, line?.severityNumber],
      [traceId, spanId, 'call', 'debug', SeverityNumber.DEBUG],
    );
    assert.equal(line?.attributes.method, APPEND);
    const admin = await connectAs(db.adminUrl);
    const { rows } = await admin.query('select kind from jeex.changes where correlation_id = $1', [correlationId]);
    assert.equal(rows.length, 1);
    assert.match(
      service.log(),
      new RegExp(`"correlationId":"${correlationId}","traceId":"${traceId}"`),
      'stderr stays',
    );
  });

  it('names its histograms, their units, buckets and attributes as the conventions do', () => {
    const calls = metric(stable.METRIC_RPC_SERVER_CALL_DURATION);
    const append = calls.points.find(({ attributes }) => attributes[stable.ATTR_RPC_METHOD] === APPEND);
    assert.deepEqual([calls.unit, calls.kind, append?.value, append?.bounds], ['s', 'histogram', 1, BOUNDARIES]);
    assert.deepEqual(Object.keys(append?.attributes ?? {}).sort(), [
      stable.ATTR_RPC_METHOD,
      incubating.ATTR_RPC_RESPONSE_STATUS_CODE,
      stable.ATTR_RPC_SYSTEM_NAME,
    ]);
    const statements = metric(stable.METRIC_DB_CLIENT_OPERATION_DURATION);
    assert.deepEqual([statements.unit, statements.kind], ['s', 'histogram']);
    assert.deepEqual(Object.keys(statements.points[0]?.attributes ?? {}).sort(), [
      stable.ATTR_DB_NAMESPACE,
      stable.ATTR_DB_QUERY_SUMMARY,
      stable.ATTR_DB_SYSTEM_NAME,
      stable.ATTR_SERVER_ADDRESS,
      stable.ATTR_SERVER_PORT,
    ]);
    const waits = metric(incubating.METRIC_DB_CLIENT_CONNECTION_WAIT_TIME);
    assert.deepEqual([waits.unit, waits.kind], ['s', 'histogram']);
    assert.deepEqual(Object.keys(waits.points[0]?.attributes ?? {}), [incubating.ATTR_DB_CLIENT_CONNECTION_POOL_NAME]);
  });

  it('has no metric and no attribute that the conventions do not know, but for what is of PostgreSQL and its own', () => {
    const known = new Set(Object.values({ ...stable, ...incubating }) as unknown[]);
    const own = /^(postgresql|pgbouncer|jeex)\./;
    for (const { name, points } of collector.metrics.values()) {
      assert.ok(known.has(name) || own.test(name), name);
      if (own.test(name)) continue;
      for (const { attributes } of points) {
        for (const key of Object.keys(attributes)) assert.ok(known.has(key), `${name} has ${key}`);
      }
    }
  });

  it('names the gauges of its pool and its process as the conventions do', () => {
    const expected: readonly (readonly [name: string, unit: string, kind: ReceivedMetric['kind']])[] = [
      [incubating.METRIC_DB_CLIENT_CONNECTION_COUNT, '{connection}', 'updowncounter'],
      [incubating.METRIC_DB_CLIENT_CONNECTION_LIMIT, '{connection}', 'updowncounter'],
      [incubating.METRIC_DB_CLIENT_CONNECTION_PENDING_REQUESTS, '{request}', 'updowncounter'],
      [incubating.METRIC_DB_CLIENT_CONNECTION_TIMEOUTS, '{timeout}', 'counter'],
      [incubating.METRIC_NODEJS_EVENTLOOP_DELAY_MIN, 's', 'gauge'],
      [incubating.METRIC_NODEJS_EVENTLOOP_DELAY_MAX, 's', 'gauge'],
      [incubating.METRIC_NODEJS_EVENTLOOP_DELAY_MEAN, 's', 'gauge'],
      [incubating.METRIC_NODEJS_EVENTLOOP_DELAY_STDDEV, 's', 'gauge'],
      [incubating.METRIC_NODEJS_EVENTLOOP_DELAY_P50, 's', 'gauge'],
      [incubating.METRIC_NODEJS_EVENTLOOP_DELAY_P90, 's', 'gauge'],
      [incubating.METRIC_NODEJS_EVENTLOOP_DELAY_P99, 's', 'gauge'],
      [incubating.METRIC_NODEJS_EVENTLOOP_UTILIZATION, '1', 'gauge'],
      [incubating.METRIC_PROCESS_CPU_TIME, 's', 'counter'],
      [incubating.METRIC_PROCESS_MEMORY_USAGE, 'By', 'updowncounter'],
      [incubating.METRIC_PROCESS_UPTIME, 's', 'gauge'],
    ];
    for (const [name, unit, kind] of expected) {
      assert.deepEqual([name, metric(name).unit, metric(name).kind], [name, unit, kind]);
    }
    const modes = metric(incubating.METRIC_PROCESS_CPU_TIME).points.map(
      ({ attributes }) => attributes[incubating.ATTR_CPU_MODE],
    );
    assert.deepEqual(modes, [incubating.CPU_MODE_VALUE_USER, incubating.CPU_MODE_VALUE_SYSTEM]);
  });

  it('tells by error.type what the server failed at, and not what its callers did wrong', async () => {
    const blocker = await connectAs(db.adminUrl);
    await blocker.query('begin');
    await blocker.query('select from jeex.projects where id = $1 for update', [projectId]);
    const late = newParent();
    // Over HTTP, where no client watches the deadline besides the server.
    const rename = { project: { id: projectId, name: 'Late' } };
    const headers = { 'x-actor-id': owner, 'connect-timeout-ms': '300', ...traceparent(late) };
    assert.equal((await post('ProjectService/UpdateProject', rename, headers)).status, 504);
    await blocker.query('rollback');
    const lost = newParent();
    const nobody = { id: randomUUID() };
    await assert.rejects(service.users.getUser(nobody, { headers: traceparent(lost) }), { code: 5 });
    await until(
      () => ofTrace(late.traceId).length === 2 && ofTrace(lost.traceId).length === 2,
      'the spans have arrived',
    );
    const ofKind = (traceId: string, kind: SpanKind) => ofTrace(traceId).find((span) => span.kind === kind + 1);
    const call = ofKind(late.traceId, SpanKind.SERVER);
    const statement = ofKind(late.traceId, SpanKind.CLIENT);
    assert.deepEqual(
      [call?.status, call?.attributes[stable.ATTR_ERROR_TYPE], call?.attributes['jeex.reason']],
      [SpanStatusCode.ERROR, 'DEADLINE_EXCEEDED', 'DEADLINE'],
    );
    assert.equal(statement?.status, SpanStatusCode.ERROR);
    assert.equal(statement?.attributes[stable.ATTR_DB_RESPONSE_STATUS_CODE], '57014');
    const refused = ofKind(lost.traceId, SpanKind.SERVER);
    assert.deepEqual(
      [refused?.status, refused?.attributes[stable.ATTR_ERROR_TYPE], refused?.attributes['jeex.reason']],
      [SpanStatusCode.UNSET, undefined, 'USER_NOT_FOUND'],
    );
    const errors = () =>
      collector.metrics.get(stable.METRIC_RPC_SERVER_CALL_DURATION)?.points.flatMap(({ attributes }) => {
        const code = attributes[incubating.ATTR_RPC_RESPONSE_STATUS_CODE];
        return code === 'OK' ? [] : [[code, attributes[stable.ATTR_ERROR_TYPE]]];
      }) ?? [];
    await until(() => errors().length === 2, 'the metrics of both have arrived');
    assert.deepEqual(errors().sort(), [
      ['DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED'],
      ['NOT_FOUND', undefined],
    ]);
  });

  it('records nothing of a call whose caller does not sample', async () => {
    const unsampled = newParent();
    const sampled = newParent();
    await service.users.getUser({ id: owner }, { headers: traceparent(unsampled, '00') });
    await service.users.getUser({ id: owner }, { headers: traceparent(sampled) });
    await until(() => ofTrace(sampled.traceId).length === 2, 'the spans of the later one have arrived');
    assert.deepEqual(ofTrace(unsampled.traceId), []);
  });

  it('names the span of a call that is recorded in its answer, over HTTP too', async () => {
    const timingOf = async (headers: Readonly<Record<string, string>>) => {
      const answered = await post('UserService/GetUser', { id: owner }, headers);
      return answered.headers.get('server-timing') ?? '';
    };
    const known = newParent();
    const [, spanId] =
      new RegExp(`, traceparent;desc="00-${known.traceId}-(.{16})-01"$`).exec(await timingOf(traceparent(known))) ?? [];
    await until(() => ofTrace(known.traceId).length === 2, 'the spans have arrived');
    const call = ofTrace(known.traceId).find((span) => span.kind === SpanKind.SERVER + 1);
    assert.deepEqual([spanId, call?.parentId], [call?.spanId, known.spanId]);
    assert.equal(call?.attributes[stable.ATTR_RPC_SYSTEM_NAME], incubating.RPC_SYSTEM_NAME_VALUE_CONNECTRPC);
    assert.doesNotMatch(await timingOf(traceparent(newParent(), '00')), /traceparent/);
  });
});

describe('a service that ends', async () => {
  it('sends what is left', async () => {
    const collector = await useCollector();
    const NEVER = '600000';
    const service = await startTelling(db, {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_BSP_SCHEDULE_DELAY: NEVER,
      OTEL_BLRP_SCHEDULE_DELAY: NEVER,
      OTEL_METRIC_EXPORT_INTERVAL: NEVER,
    });
    await service.database.getServerInfo({});
    assert.deepEqual([collector.spans.length, collector.logs.length, collector.metrics.size], [0, 0, 0]);
    await service.stop();
    assert.equal(await service.exited, 0);
    assert.ok(collector.spans.some(({ kind }) => kind === SpanKind.SERVER + 1));
    assert.ok(collector.logs.some(({ body }) => body === 'stopping'));
    assert.ok(collector.metrics.has(stable.METRIC_RPC_SERVER_CALL_DURATION));
  });
});

describe('sampling by OTEL_TRACES_SAMPLER', async () => {
  it('takes its share of the calls that nobody has decided on, and follows who has', async () => {
    const collector = await useCollector();
    const service = await startTelling(db, {
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: collector.url,
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_TRACES_SAMPLER_ARG: '0',
    });
    await service.database.getServerInfo({});
    const parent = newParent();
    await service.database.getServerInfo({}, { headers: traceparent(parent) });
    await service.stop();
    assert.deepEqual([...new Set(collector.spans.map(({ traceId }) => traceId))], [parent.traceId]);
    assert.deepEqual([collector.logs.length, collector.metrics.size], [0, 0], 'other signals have no endpoint');
  });
});
