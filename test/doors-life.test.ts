import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:http2';
import { test } from 'node:test';
import { type DescMethod, fromBinary } from '@bufbuild/protobuf';
import { Client, credentials, status } from '@grpc/grpc-js';
import { Health, HealthCheckResponseSchema } from '../src/gen/grpc/health/v1/health_pb.js';
import { ExportService } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { Refusal } from '../src/refusal.ts';
import type { Call } from '../src/rpc/call.ts';
import { createDoors } from '../src/rpc/doors.ts';
import { createHealth } from '../src/rpc/health.ts';
import { parseAddress } from '../src/rpc/listen.ts';
import { SERVICES } from '../src/service.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';
import { callerWith, NO_ACCESS_LOG } from './support/access.ts';
import {
  type Answers,
  callGrpc,
  encode,
  endOf,
  pathOf,
  post,
  refusedGrpc,
  refusedHttp,
  sendGrpc,
  streamGrpc,
  useEcho,
} from './support/echo.ts';
import { listServices } from './support/reflection.ts';
import { until } from './support/until.ts';

const { getUser, recordLogin } = UserService.method;
const { streamExportContent } = ExportService.method;
const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';

/** Calls that hang until their signal aborts, kept for the test to look at. */
const hanging = () => {
  const calls: Call[] = [];
  const handler = (_: object, call: Call): Promise<object> => {
    calls.push(call);
    return new Promise((_resolve, reject) => call.signal.addEventListener('abort', () => reject(call.signal.reason)));
  };
  return { calls, handler };
};

const hangs = hanging();
let produced = 0;
const MEGABYTE = 'x'.repeat(1024 * 1024);
const answers: Answers = {
  'UserService.getUser': hangs.handler,
  'UserService.recordLogin': () => new Promise(() => {}),
  'UserService.batchGetUsers': async () => ({ users: [] }),
  'ExportService.streamExportContent': async function* (request: { id: string }, call: Call) {
    for (let i = 0; i < 64 && !call.signal.aborted; i += 1) {
      produced += 1;
      yield { version: { version: i + 1, content: MEGABYTE } };
    }
    if (request.id === ID) throw new Refusal('EXPORT_EXPIRED', 'gone');
  } as never,
};
const { client, http, health, grpc, probes } = await useEcho(answers);

test('a deadline aborts the handler, and is answered with DEADLINE over HTTP', async () => {
  const refused = await refusedHttp(
    await post(http, getUser, JSON.stringify({ id: ID }), { 'connect-timeout-ms': '60' }),
  );
  assert.deepEqual([refused.code, refused.reason], [status.DEADLINE_EXCEEDED, 'DEADLINE']);
  assert.equal(hangs.calls.at(-1)?.signal.aborted, true);
});

test('a handler that never ends is answered soon after the deadline, with an unknown outcome', async () => {
  const timeout = { 'connect-timeout-ms': '30' };
  const refused = await refusedHttp(await post(http, recordLogin, JSON.stringify({ id: ID }), timeout));
  assert.deepEqual([refused.reason, refused.metadata.outcome], ['DEADLINE', 'unknown']);
});

test('a deadline that has passed refuses the call before its handler', async () => {
  const timeout = { 'connect-timeout-ms': '0' };
  const refused = await refusedHttp(await post(http, recordLogin, JSON.stringify({ id: ID }), timeout));
  assert.deepEqual([refused.reason, refused.metadata.outcome], ['DEADLINE', 'not_applied']);
  assert.equal((await refusedHttp(await post(http, recordLogin, '{', timeout))).reason, 'DEADLINE');
});

test('a deadline and a cancellation over gRPC reach the handler', async () => {
  const { error } = await sendGrpc(client, getUser, encode(getUser, { id: ID }), {}, { deadline: Date.now() + 80 });
  assert.equal(error?.code, status.DEADLINE_EXCEEDED);
  const timedOut = hangs.calls.at(-1);
  await until(() => timedOut?.signal.aborted === true, 'the deadline reached the handler');

  const before = hangs.calls.length;
  const raw = (bytes: Buffer) => bytes;
  const request = Buffer.from(encode(getUser, { id: ID }));
  const call = client.makeUnaryRequest(pathOf(getUser), raw, raw, request, () => {});
  await until(() => hangs.calls.length > before, 'the call arrived');
  call.cancel();
  await until(() => hangs.calls.at(-1)?.signal.aborted === true, 'the cancellation reached the handler');
});

test('a client that leaves over HTTP reaches the handler', async () => {
  const before = hangs.calls.length;
  const controller = new AbortController();
  const body = JSON.stringify({ id: ID });
  const headers = { 'content-type': 'application/json' };
  const pending = fetch(http + pathOf(getUser), { method: 'POST', body, headers, signal: controller.signal });
  await until(() => hangs.calls.length > before, 'the call arrived');
  controller.abort();
  await assert.rejects(pending);
  await until(() => hangs.calls.at(-1)?.signal.aborted === true, 'the departure reached the handler');
});

test('a stream that nobody reads is not produced, and arrives in full once it is read', async () => {
  produced = 0;
  // Plain HTTP/2, because the stock client reads ahead of its user without a bound.
  const session = connect(`http://${grpc}`);
  const stream = session.request({
    ':method': 'POST',
    ':path': pathOf(streamExportContent),
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const message = encode(streamExportContent, { projectId: ID, id: ID.replace('90', '91') });
  stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]));
  await once(stream, 'response');
  await until(() => produced > 0, 'the stream began');
  for (let i = 0; i < 50; i += 1) await callGrpc(client, UserService.method.batchGetUsers, { ids: [ID] });
  assert.ok(produced < 4, `${produced} of 64 messages were produced for a client that reads none`);
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  const [[trailers]] = await Promise.all([once(stream, 'trailers'), once(stream, 'end')]);
  assert.equal(trailers['grpc-status'], '0');
  assert.ok(bytes > 64 * MEGABYTE.length);
  session.close();
});

test('a stream ends with its error and details, and a cancelled one stops its handler', async () => {
  const refused = refusedGrpc(await endOf(streamGrpc(client, streamExportContent, { projectId: ID, id: ID })));
  assert.deepEqual([refused.code, refused.reason], [status.FAILED_PRECONDITION, 'EXPORT_EXPIRED']);
  assert.match(refused.correlationId ?? '', /^[0-9a-f-]{36}$/);

  produced = 0;
  const stream = streamGrpc(client, streamExportContent, { projectId: ID, id: ID });
  stream.once('data', () => stream.cancel());
  assert.equal((await endOf(stream)).error?.code, status.CANCELLED);
  assert.ok(produced < 64);
});

const checkHealth = async (target: Client, service: string): Promise<number> => {
  const { bytes, error } = await sendGrpc(target, Health.method.check, encode(Health.method.check, { service }));
  if (error) throw error;
  return fromBinary(HealthCheckResponseSchema, bytes ?? Buffer.alloc(0)).status;
};

test('health answers for every name on both of its ports, and follows readiness', async () => {
  const onProbes = new Client(probes ?? '', credentials.createInsecure());
  for (const target of [client, onProbes]) {
    for (const name of ['', 'liveness', 'readiness', ...SERVICES.map(({ typeName }) => typeName)]) {
      assert.equal(await checkHealth(target, name), 1, name);
    }
    await assert.rejects(checkHealth(target, 'nobody'), { code: status.NOT_FOUND });
  }
  health.setReady(false);
  assert.equal(await checkHealth(client, 'readiness'), 2);
  assert.equal(await checkHealth(client, 'liveness'), 1);
  assert.equal((await fetch(`${http}/readyz`)).status, 503);
  assert.equal((await fetch(`${http}/livez`)).status, 200);
  health.setReady(true);
  assert.equal((await fetch(`${http}/readyz`)).status, 200);
  onProbes.close();
});

test('reflection lists every service, health and itself, in both versions, and describes them', async () => {
  const expected = [
    ...SERVICES.map(({ typeName }) => typeName),
    'grpc.health.v1.Health',
    'grpc.reflection.v1.ServerReflection',
    'grpc.reflection.v1alpha.ServerReflection',
  ].sort();
  for (const version of ['v1', 'v1alpha'] as const) {
    const { services, files } = await listServices(grpc, version);
    assert.deepEqual(services, expected);
    const document = files.find(({ name }) => name === 'jeex/persistence/v1/document_service.proto');
    assert.ok(document?.messageType.some(({ name }) => name === 'AppendVersionRequest'));
  }
});

const withHost = (host: string): Promise<number> =>
  new Promise((resolve, reject) => {
    const request = httpRequest(`${http}/livez`, { headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on('error', reject).end();
  });

test('without authentication a Host that does not name this machine is refused', async () => {
  for (const host of ['localhost', 'localhost:8080', '127.0.0.1:1', '[::1]:8080', 'LOCALHOST']) {
    assert.equal(await withHost(host), 200, host);
  }
  for (const host of ['evil.example', 'evil.example:8080', 'localhost.evil.example', '127.0.0.1.evil.example']) {
    assert.equal(await withHost(host), 403, host);
  }
});

test('browsers get in from the listed origins only', async () => {
  const url = http + pathOf(UserService.method.batchGetUsers);
  const preflight = (origin: string) =>
    fetch(url, { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST' } });
  const listed = await preflight('https://app.example');
  assert.equal(listed.status, 204);
  assert.equal(listed.headers.get('access-control-allow-origin'), 'https://app.example');
  assert.match(listed.headers.get('access-control-allow-headers') ?? '', /x-actor-id/);
  assert.equal((await preflight('https://evil.example')).status, 403);
  const body = JSON.stringify({ ids: [ID] });
  const actual = await post(http, UserService.method.batchGetUsers, body, { origin: 'https://app.example' });
  assert.equal(actual.status, 200);
  assert.match(actual.headers.get('access-control-expose-headers') ?? '', /x-correlation-id/);
  for (const origin of ['https://evil.example', 'null']) {
    assert.equal((await post(http, UserService.method.batchGetUsers, body, { origin })).status, 403);
  }
});

test('an address beyond this machine is refused without authentication, with the reason', () => {
  const options = { healthListen: parseAddress('0.0.0.0:0'), allowedOrigins: [], implementations: [], version: '' };
  const unused = {
    tls: null,
    identifyRequest: () => null,
    log: {} as never,
    accessLog: NO_ACCESS_LOG,
    measurements: createMeasurements(),
  };
  const rest = { ...unused, ...options, health: createHealth([]) };
  const open = { ...rest, grpcListen: parseAddress('0.0.0.0:50051'), httpListen: parseAddress('127.0.0.1:0') };
  assert.throws(
    () => createDoors({ ...open, authenticate: null }),
    /GRPC_LISTEN=0\.0\.0\.0:50051 .* authentication is off/,
  );
  assert.doesNotThrow(() => createDoors({ ...open, authenticate: () => callerWith('x') }));
});

test('a caller without the scope is refused, and one that authentication refuses is UNAUTHENTICATED', async () => {
  const guarded = await useEcho(answers, {
    authenticate: async (header) => {
      const scope = header('authorization');
      if (!scope) throw new Refusal('UNAUTHENTICATED', 'no token');
      return callerWith('tester', scope.split(' '));
    },
  });
  const { batchGetUsers } = UserService.method;
  const asked = async (method: DescMethod, headers: Record<string, string>) =>
    refusedGrpc(await sendGrpc(guarded.client, method, encode(method, { ids: [ID], id: ID }), headers)).reason;
  assert.equal(await asked(batchGetUsers, {}), 'UNAUTHENTICATED');
  assert.equal(await asked(batchGetUsers, { authorization: 'read' }), 'SCOPE_REQUIRED');
  assert.equal(await asked(recordLogin, { authorization: 'read', 'x-actor-id': ID }), 'SCOPE_REQUIRED');
  assert.equal(await asked(recordLogin, { authorization: 'write' }), 'SCOPE_REQUIRED');
  const { users } = await callGrpc(guarded.client, batchGetUsers, { ids: [ID] }, { authorization: 'read system' });
  assert.deepEqual(users, []);
  assert.equal(guarded.lines.find(({ code }) => code === 'OK')?.caller, 'tester');
});
