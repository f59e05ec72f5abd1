import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { createLog } from '../src/log.ts';
import { metricsPage } from '../src/rpc/metrics-page.ts';
import type { Authenticate } from '../src/rpc/pipeline.ts';
import type { ReadGauges } from '../src/telemetry/gauge.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';
import { NO_TELEMETRY } from '../src/telemetry/preload.ts';
import { callerWith, keepRecords, NO_ACCESS_LOG } from './support/access.ts';
import { useEcho } from './support/echo.ts';
import { parseMetrics, type Sample } from './support/prometheus.ts';
import { newProject, type TestService, useService } from './support/service.ts';
import { useIssuer } from './support/tokens.ts';

const scrape = (http: string, headers: Readonly<Record<string, string>> = {}, method = 'GET') =>
  fetch(`http://${http}/metrics`, { headers, method });

const samplesOf = async ({ http }: TestService): Promise<Sample[]> => parseMetrics(await (await scrape(http)).text());

/** The sum of a name's values, of the series that have these labels. */
const sumOf = (samples: readonly Sample[], name: string, labels: Readonly<Record<string, string>> = {}): number =>
  samples
    .filter((each) => each.name === name && Object.entries(labels).every(([key, value]) => each.labels[key] === value))
    .reduce((sum, { value }) => sum + value, 0);

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/i;

describe('/metrics', async () => {
  const service = await useService();
  const { projectId, owner } = await newProject(service);

  it('is what Prometheus reads, with the figures of calls, statements, the pool and the process', async () => {
    const response = await scrape(service.http);
    assert.deepEqual(
      [response.status, response.headers.get('content-type')],
      [200, 'text/plain; version=0.0.4; charset=utf-8'],
    );
    const names = new Set(parseMetrics(await response.text()).map(({ name }) => name));
    for (const name of [
      'rpc_server_call_duration_bucket',
      'rpc_server_call_duration_count',
      'db_client_operation_duration_sum',
      'db_client_connection_wait_time_count',
      'db_client_connection_count',
      'nodejs_eventloop_delay_p99',
      'nodejs_eventloop_utilization',
      'process_cpu_time_total',
      'process_memory_usage',
      'target_info',
    ]) {
      assert.ok(names.has(name), name);
    }
  });

  it('counts each call once, on either door, by its method and how it ended', async () => {
    const before = await samplesOf(service);
    const counts = (samples: readonly Sample[], labels: Readonly<Record<string, string>>) =>
      sumOf(samples, 'rpc_server_call_duration_count', labels) -
      sumOf(before, 'rpc_server_call_duration_count', labels);
    for (let i = 0; i < 7; i++) await service.projects.getProject({ id: projectId }, { actor: owner });
    await assert.rejects(service.projects.getProject({ id: randomUUID() }, { actor: owner }), { code: 5 });
    const path = 'jeex.persistence.v1.ProjectService/GetProject';
    const headers = { 'content-type': 'application/json', 'x-actor-id': owner };
    const body = JSON.stringify({ id: projectId });
    assert.equal((await fetch(`http://${service.http}/${path}`, { method: 'POST', headers, body })).status, 200);
    const after = await samplesOf(service);
    assert.equal(counts(after, {}), 9);
    const grpc = { rpc_system_name: 'grpc', rpc_method: path };
    assert.equal(counts(after, { ...grpc, rpc_response_status_code: 'OK' }), 7);
    assert.equal(counts(after, { ...grpc, rpc_response_status_code: 'NOT_FOUND' }), 1);
    assert.equal(counts(after, { rpc_system_name: 'connectrpc', rpc_method: path }), 1);
    assert.equal(
      sumOf(after, 'rpc_server_call_duration_bucket', { ...grpc, le: '+Inf' }),
      sumOf(after, 'rpc_server_call_duration_count', grpc),
      'the last bucket holds all',
    );
    const statement = { db_query_summary: 'projects.get' };
    const statements = (samples: readonly Sample[]) => sumOf(samples, 'db_client_operation_duration_count', statement);
    assert.equal(statements(after) - statements(before), 9);
  });

  it('has no id in its labels', async () => {
    for (const { name, labels } of await samplesOf(service)) {
      assert.doesNotMatch(JSON.stringify(labels), UUID, name);
      assert.doesNotMatch(JSON.stringify(labels), new RegExp(`${projectId}|${owner}`), name);
    }
  });

  it('answers HEAD, and no POST', async () => {
    const head = await scrape(service.http, {}, 'HEAD');
    assert.deepEqual([head.status, await head.text()], [200, '']);
    assert.equal((await scrape(service.http, {}, 'POST')).status, 405);
  });
});

describe('/metrics where callers need a token', async () => {
  const issuer = await useIssuer();
  const { accessLog, records } = keepRecords();
  const lines: Record<string, unknown>[] = [];
  const log = createLog('warn', { write: (line) => lines.push(JSON.parse(line)) });
  const service = await useService({ env: issuer.env, accessLog, log });
  const bearer = async (scope: string) => ({
    authorization: `Bearer ${await issuer.token({ sub: 'prometheus', scope })}`,
  });

  it('needs one with the scope monitor', async () => {
    assert.equal((await scrape(service.http, await bearer('monitor'))).status, 200);
    const nobody = await scrape(service.http);
    assert.deepEqual([nobody.status, nobody.headers.get('www-authenticate')], [401, 'Bearer']);
    assert.equal(((await nobody.json()) as { code: string }).code, 'unauthenticated');
    const other = await scrape(service.http, await bearer('read write system admin'));
    const { code, message } = (await other.json()) as { code: string; message: string };
    assert.deepEqual([other.status, code], [403, 'permission_denied']);
    assert.match(message, /lacks the scope monitor/);
  });

  it('puts on record and in the log who was refused, and not who was answered', () => {
    assert.deepEqual(
      records.map(({ rpc, caller, result, admitted }) => [rpc, caller, result, admitted]),
      [
        ['/metrics', '', 'UNAUTHENTICATED', false],
        ['/metrics', 'prometheus', 'SCOPE_REQUIRED', false],
      ],
    );
    assert.deepEqual(
      lines
        .filter(({ method }) => method === '/metrics')
        .map(({ caller, code, correlationId }) => [caller, code, correlationId]),
      records.map(({ caller, correlationId }, i) => [
        caller,
        ['UNAUTHENTICATED', 'PERMISSION_DENIED'][i],
        correlationId,
      ]),
    );
  });

  it('needs none with METRICS_PUBLIC=true', async () => {
    const open = await useService({ env: { ...issuer.env, METRICS_PUBLIC: 'true' } });
    assert.equal((await scrape(open.http)).status, 200);
    assert.equal((await scrape(open.http, { authorization: 'Bearer nonsense' })).status, 200);
  });
});

describe('figures that are read at a scrape', () => {
  const usePage = async (gauges: ReadGauges, authenticate: Authenticate | null = null) => {
    const sources = { measurements: createMeasurements(), place: {}, gauges };
    const log = createLog('silent');
    const page = metricsPage({ sources, telemetry: NO_TELEMETRY, authenticate, log, accessLog: NO_ACCESS_LOG });
    const { http } = await useEcho({}, { routes: new Map([['/metrics', page]]) });
    return http.replace('http://', '');
  };

  it('are read once for those who ask at the same time', async () => {
    let read = 0;
    const gauges: ReadGauges = () => {
      read += 1;
      return [];
    };
    const MANY = 8;
    let waiting = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const together: Authenticate = async () => {
      waiting += 1;
      if (waiting === MANY) resolve();
      await promise;
      return callerWith('prometheus', ['monitor']);
    };
    const http = await usePage(gauges, together);
    const texts = await Promise.all(Array.from({ length: MANY }, async () => (await scrape(http)).text()));
    assert.deepEqual([new Set(texts).size, read], [1, 1]);
    await (await scrape(http)).text();
    assert.equal(read, 2, 'and again for who asks later');
  });

  it('say so when they cannot be read, and may be read again', async () => {
    let broken = true;
    const http = await usePage(() => {
      if (broken) throw new Error('out of order');
      return [];
    });
    const response = await scrape(http);
    assert.deepEqual([response.status, ((await response.json()) as { code: string }).code], [500, 'internal']);
    broken = false;
    assert.equal((await scrape(http)).status, 200);
  });
});
