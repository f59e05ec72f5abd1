import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { type ClientHttp2Stream, connect } from 'node:http2';
import { after, describe, it } from 'node:test';
import { type DescMethod, fromBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { Client, credentials, status } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { ErrorInfoSchema } from '../src/gen/google/rpc/error_details_pb.js';
import { StatusSchema } from '../src/gen/google/rpc/status_pb.js';
import { Health, HealthCheckResponseSchema } from '../src/gen/grpc/health/v1/health_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { Refusal } from '../src/refusal.ts';
import { SCOPES } from '../src/rpc/access.ts';
import type { Authenticate } from '../src/rpc/pipeline.ts';
import { callerWith } from './support/access.ts';
import { encode, endOf, pathOf, refusedConnect, sendGrpc, streamGrpc, useEcho } from './support/echo.ts';
import { until } from './support/until.ts';

const { getUser } = UserService.method;
const { check, watch } = Health.method;
const GOOD = { authorization: 'good' };

/** Opens calls of one connection whose request is never whole. */
const useHalfSent = (address: string) => {
  const session = connect(`http://${address}`).on('error', () => {});
  after(() => session.destroy());
  return (method: DescMethod, headers: Record<string, string> = {}): ClientHttp2Stream => {
    const type = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };
    const stream = session.request({ ...type, ':path': pathOf(method), ...headers });
    stream.on('error', () => {}).resume();
    stream.write(Buffer.from([0, 0, 0, 1, 0, 7]));
    return stream;
  };
};

/** How the server ended a call and closed its stream, which its client leaves open. */
const ended = async (stream: ClientHttp2Stream) => {
  const seen: Record<string, unknown> = {};
  stream.on('response', (headers) => Object.assign(seen, headers));
  stream.on('trailers', (trailers) => Object.assign(seen, trailers));
  await once(stream, 'close');
  const details = Buffer.from(String(seen['grpc-status-details-bin'] ?? ''), 'base64');
  const [info] = fromBinary(StatusSchema, details).details.map((any) => anyUnpack(any, ErrorInfoSchema));
  return { code: Number(seen['grpc-status']), reason: info?.reason, id: seen['x-correlation-id'] };
};

describe('a request that does not come in whole', async () => {
  const authenticate: Authenticate = (header) => {
    if (header('authorization') === 'good') return callerWith('tester', SCOPES);
    const refused = new Refusal('UNAUTHENTICATED', 'no token');
    if (header('authorization') === 'slow') return Promise.reject(refused);
    throw refused;
  };
  const { grpc, http, doors } = await useEcho({}, { authenticate });
  const halfSent = useHalfSent(grpc);

  it('is refused at its headers without a token, and its stream is closed', async () => {
    for (const headers of [{}, { authorization: 'slow' }] as Record<string, string>[]) {
      const { code, reason, id } = await ended(halfSent(getUser, headers));
      assert.deepEqual([code, reason], [status.UNAUTHENTICATED, 'UNAUTHENTICATED']);
      assert.match(String(id), /^[0-9a-f-]{36}$/);
    }
  });

  it('is closed at its deadline', async () => {
    const { code, reason } = await ended(halfSent(getUser, { ...GOOD, 'grpc-timeout': '20m' }));
    assert.deepEqual([code, reason], [status.DEADLINE_EXCEEDED, 'DEADLINE']);
  });

  it('is one of few that are waited for where no token is needed', async () => {
    const calls = Array.from({ length: 40 }, () => halfSent(check));
    const last = await Promise.all(calls.slice(32).map(ended));
    assert.deepEqual(new Set(last.map(({ code }) => code)), new Set([status.DEADLINE_EXCEEDED]));
    assert.ok(calls.slice(0, 32).every(({ closed }) => !closed));
    for (const call of calls) call.destroy();
  });

  it('does not hold up the end of the service', async () => {
    const over = ended(halfSent(getUser, GOOD));
    const headers = { 'content-type': 'application/json', 'content-length': '100', ...GOOD };
    const request = httpRequest(http + pathOf(getUser), { method: 'POST', headers });
    request.write('{');
    const response = once(request, 'response');
    await new Promise((resolve) => halfSent(getUser, {}).on('close', resolve));
    await doors.drain(120_000);
    assert.deepEqual((await over).reason, 'SHUTTING_DOWN');
    const [answer] = await response;
    const body = JSON.parse(Buffer.concat(await answer.toArray()).toString());
    const refused = refusedConnect(body, new Headers());
    assert.deepEqual([refused.reason, refused.retry], ['SHUTTING_DOWN', true]);
    await doors.stop(120_000);
  });
});

describe('health, which needs no token', async () => {
  const { client, grpc, probes } = await useEcho({});
  const onProbes = new Client(probes ?? '', credentials.createInsecure());
  after(() => onProbes.close());
  const unknown = encode(watch, { service: 'no-such-service' });

  it('keeps and repeats no name that it does not know', async (t) => {
    const kept = t.mock.method(HealthImplementation.prototype as never as { addWatcher(): void }, 'addWatcher');
    const { error } = await sendGrpc(client, check, unknown);
    assert.equal(error?.code, status.NOT_FOUND);
    assert.doesNotMatch(error?.details ?? '', /no-such/);
    const stream = streamGrpc(client, watch, { service: 'no-such-service' });
    const [bytes] = await once(stream, 'data');
    assert.equal(fromBinary(HealthCheckResponseSchema, bytes).status, 3);
    assert.equal(kept.mock.callCount(), 0);
    stream.on('error', () => {}).cancel();
    const long = await endOf(streamGrpc(client, watch, { service: 'x'.repeat(256) }));
    assert.equal(long.error?.code, status.INVALID_ARGUMENT);
  });

  it('takes small messages alone on its own port', async () => {
    const { error } = await sendGrpc(onProbes, check, encode(check, { service: 'x'.repeat(4096) }));
    assert.equal(error?.code, status.RESOURCE_EXHAUSTED);
    assert.equal((await sendGrpc(onProbes, check, encode(check, {}))).error, null);
  });

  it('is watched by so many at a time', async () => {
    const sessions = Array.from({ length: 5 }, () => connect(`http://${grpc}`));
    after(() => {
      for (const session of sessions) session.destroy();
    });
    const message = Buffer.concat([Buffer.from([0, 0, 0, 0, unknown.length]), unknown]);
    let watching = 0;
    let refused = 0;
    const open = (session: (typeof sessions)[number]) => {
      const type = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };
      const stream = session.request({ ...type, ':path': pathOf(watch) }).on('error', () => {});
      stream.on('response', (headers) => {
        if (Number(headers['grpc-status']) === status.RESOURCE_EXHAUSTED) refused += 1;
      });
      stream.once('data', () => {
        watching += 1;
      });
      stream.end(message);
    };
    for (const session of sessions) for (let i = 0; i < 204; i += 1) open(session);
    await until(() => watching + refused === 1020, 'all are answered');
    assert.equal(watching, 1000);
  });
});
