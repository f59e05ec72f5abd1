import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:http2';
import { describe, it } from 'node:test';
import { type DescMethod, type Message, toJson } from '@bufbuild/protobuf';
import type { AccessRecord } from '../src/audit/access-log.ts';
import { Health } from '../src/gen/grpc/health/v1/health_pb.js';
import { ChangeService } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { Refusal } from '../src/refusal.ts';
import { type Caller, SCOPES } from '../src/rpc/access.ts';
import { callerWith, keepRecords, parseLines, useAccessLog } from './support/access.ts';
import { clientOf, openChannel } from './support/client.ts';
import { encode, endOf, pathOf, post, sendGrpc, streamGrpc, useEcho } from './support/echo.ts';
import { EXAMPLES, type Example, newWorld } from './support/examples.ts';
import { placesOf, withValue } from './support/fields.ts';
import { callOf, type Fields, keyOf, METHODS, PROJECT_METHODS } from './support/methods.ts';
import { binaryOf } from './support/raw.ts';
import { listServices } from './support/reflection.ts';
import { useService } from './support/service.ts';
import { until } from './support/until.ts';

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

interface Made extends Example {
  readonly correlationId: string;
  readonly projectId: string;
  readonly answer: Message;
}

/** Makes the example call of every RPC, and reads what was written of it all. */
const callEverything = async () => {
  const { accessLog, text } = await useAccessLog();
  const service = await useService({ accessLog });
  const made = new Map<DescMethod, Made>();
  for (const method of METHODS) {
    const world = await newWorld(service);
    const example = await (EXAMPLES[keyOf(method)] as (typeof EXAMPLES)[string])(world);
    const correlationId = randomUUID();
    const answer = await callOf(service, method)(example.request, { ...example.options, correlationId });
    made.set(method, { ...example, correlationId, projectId: world.projectId, answer });
  }
  await service.stop();
  await accessLog.close();
  return { made, lines: parseLines(await text()) };
};

/** Every text in a value, at any depth. */
const textsIn = (value: unknown): string[] => {
  if (typeof value === 'string') return [value];
  if (value instanceof Uint8Array) return [Buffer.from(value).toString()];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : [];
};

describe('the example call of every RPC', async () => {
  const { made, lines } = await callEverything();
  const madeOf = (method: DescMethod): Made => made.get(method) as Made;

  /** What an answer names, for requests that name nothing. */
  const named = (method: DescMethod): Record<string, { id?: string; projectId?: string }> =>
    toJson(method.output, madeOf(method).answer) as never;

  const projectsOf = (method: DescMethod): (string | undefined)[] | undefined => {
    if (PROJECT_METHODS.includes(method)) return [madeOf(method).projectId];
    const { project, execution, export: exported } = named(method);
    const id = project?.id ?? execution?.projectId ?? exported?.projectId;
    return id === undefined ? undefined : [id];
  };

  const usersOf = (method: DescMethod): unknown => {
    const { userId, ids, id, user } = madeOf(method).request as Record<string, unknown>;
    if (userId !== undefined) return [userId];
    if (method.parent !== UserService) return undefined;
    const single = id ?? (user as Fields | undefined)?.id ?? named(method).user?.id;
    return ids ?? (single === undefined ? undefined : [single]);
  };

  for (const method of METHODS) {
    it(`${keyOf(method)} leaves its record`, () => {
      const { correlationId, options } = madeOf(method);
      const own = lines.filter(({ correlation_id }) => correlation_id === correlationId);
      const results = own.map(({ result }) => result);
      if (method.methodKind === 'unary') assert.deepEqual(results, ['OK']);
      else assert.match(results.join(), /^OPENED,(CANCELLED|OK|SHUTTING_DOWN)$/);
      for (const { rpc, kind, caller, actor, projects, users, duration_ms } of own) {
        assert.equal(rpc, `${method.parent.typeName}/${method.name}`);
        assert.deepEqual([kind, caller, actor], ['access', 'anonymous', options.actor]);
        assert.deepEqual(projects, projectsOf(method));
        assert.deepEqual(users, usersOf(method));
        assert.ok(Number(duration_ms) > 0);
      }
    });
  }

  it('leaves no text of its request or answer, and no e-mail', () => {
    const texts = METHODS.flatMap((method) => {
      const { request, answer } = madeOf(method);
      return [...textsIn(request), ...textsIn(answer)];
    });
    const telling = new Set(texts.filter((each) => each.length > 5 && !UUID.test(each) && each !== 'anonymous'));
    assert.ok(telling.size > 100, `${telling.size} texts`);
    const values = lines.flatMap(({ rpc, ...rest }) => textsIn(rest)).join('\n');
    for (const each of telling) assert.ok(!values.includes(each), each);
    assert.doesNotMatch(values, /@/);
  });
});

const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const { getUser, deleteUser } = UserService.method;
const { watchProject } = ChangeService.method;
const GOOD = { authorization: 'good', 'x-actor-id': ID };

const untilAborted = (_: object, { signal }: { signal: AbortSignal }): Promise<object> =>
  new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

/** Both doors, and what is on record of the calls that came in through them. */
const useRecordedEcho = async () => {
  const { accessLog, records } = keepRecords();
  const seen = { authenticated: 0, handled: 0 };
  /** What authentication answers to a token that takes long to check. */
  const slow = Promise.withResolvers<Caller>();
  const echo = await useEcho(
    {
      'UserService.getUser': (request: object, call: { signal: AbortSignal }) => {
        seen.handled += 1;
        return untilAborted(request, call);
      },
      'UserService.deleteUser': async ({ id }: { id: string }) => {
        if (id === ID) throw new Error('unexpected');
        throw new Refusal('USER_NOT_FOUND', 'no such user');
      },
      'ChangeService.watchProject': async function* (_: object, call: { signal: AbortSignal }) {
        yield {};
        await untilAborted(_, call);
      } as never,
    },
    {
      accessLog,
      authenticate: (header) => {
        seen.authenticated += 1;
        if (header('authorization') === 'good') return callerWith('tester', SCOPES);
        if (header('authorization') === 'poor') return callerWith('tester', ['read']);
        if (header('authorization') === 'slow') return slow.promise;
        throw new Refusal('UNAUTHENTICATED', 'no token');
      },
    },
  );
  return { ...echo, records, seen, slow };
};

describe('a call that ends otherwise leaves one record', async () => {
  const echo = await useRecordedEcho();
  const { client, http, records } = echo;
  const port = new URL(http).port;

  const grpc = (method: DescMethod, request: object, headers: Record<string, string> = GOOD, deadline?: number) =>
    sendGrpc(client, method, encode(method, request), headers, deadline ? { deadline } : {});

  /** Sends a request's headers and a part of its body, and no more. */
  const beginHttp = (headers: Record<string, string> = {}) => {
    const type = { 'content-type': 'application/json', 'content-length': '100' };
    const request = httpRequest({
      port,
      method: 'POST',
      path: pathOf(getUser),
      headers: { ...type, ...GOOD, ...headers },
    });
    request.on('error', () => {}).write('{');
    return request;
  };

  /** The same over gRPC. */
  const beginGrpc = (headers: Record<string, string> = {}, bytes = Buffer.from([0, 0, 0, 0, 9])) => {
    const session = connect(`http://${echo.grpc}`).on('error', () => {});
    const stream = session.request({
      ':method': 'POST',
      ':path': pathOf(getUser),
      'content-type': 'application/grpc',
      te: 'trailers',
      ...GOOD,
      ...headers,
    });
    stream.on('error', () => {}).on('close', () => session.close());
    stream.resume().write(bytes);
    return stream;
  };

  /** A message that says it is compressed. */
  const PACKED = Buffer.from([1, 0, 0, 0, 1, 9]);
  const LARGE = new Uint8Array(5 * 1024 * 1024);

  const ENDS: readonly (readonly [string, string, () => unknown, Partial<AccessRecord>?])[] = [
    [
      'without a token',
      'UNAUTHENTICATED',
      () => grpc(getUser, { id: ID }, { 'x-actor-id': ID }),
      { caller: '', actor: null },
    ],
    ['without a token over HTTP', 'UNAUTHENTICATED', () => post(http, getUser, '{}'), { caller: '', actor: null }],
    [
      'for no UUID',
      'INVALID_FIELD',
      () => grpc(getUser, { id: ID }, { ...GOOD, 'x-actor-id': 'Eve' }),
      { actor: null },
    ],
    [
      'with a wrong correlation id',
      'INVALID_FIELD',
      () => grpc(getUser, { id: ID }, { ...GOOD, 'x-correlation-id': 'x' }),
    ],
    ['with a field that breaks a rule', 'INVALID_FIELD', () => grpc(getUser, { id: 'x' }), { users: [] }],
    ['with bytes that are no message', 'INVALID_FIELD', () => sendGrpc(client, getUser, Buffer.from([0xff]), GOOD)],
    ['with text that is no JSON', 'INVALID_FIELD', () => post(http, getUser, '{', GOOD)],
    ['beyond the scopes', 'SCOPE_REQUIRED', () => grpc(deleteUser, { id: ID }, { ...GOOD, authorization: 'poor' })],
    ['that a handler refuses', 'USER_NOT_FOUND', () => grpc(deleteUser, { id: randomUUID() })],
    ['that fails unexpectedly', 'INTERNAL', () => grpc(deleteUser, { id: ID }), { users: [ID] }],
    ['at its deadline', 'DEADLINE', () => grpc(getUser, { id: ID }, GOOD, Date.now() + 50)],
    [
      'at its deadline over HTTP',
      'DEADLINE',
      () => post(http, getUser, `{"id":"${ID}"}`, { ...GOOD, 'connect-timeout-ms': '50' }),
    ],
    ['at its deadline, half sent', 'DEADLINE', () => beginGrpc({ 'grpc-timeout': '50m' })],
    ['at its deadline, half sent over HTTP', 'DEADLINE', () => beginHttp({ 'connect-timeout-ms': '50' })],
    ['too large', 'RESOURCE_EXHAUSTED', () => sendGrpc(client, getUser, LARGE, GOOD), { caller: 'tester', actor: ID }],
    ['with a deadline that is none', 'INTERNAL', () => beginGrpc({ 'grpc-timeout': 'soon' }), { caller: 'tester' }],
    ['packed in an unknown way', 'UNIMPLEMENTED', () => beginGrpc({ 'grpc-encoding': 'br' }, PACKED)],
    ['that cannot be unpacked', 'INTERNAL', () => beginGrpc({ 'grpc-encoding': 'gzip' }, PACKED)],
    [
      'with one field that is right and one that is not',
      'INVALID_FIELD',
      () => grpc(watchProject, { projectId: ID.toUpperCase(), afterRevision: -1n }),
      { projects: [ID] },
    ],
    [
      'too large over HTTP',
      'RESOURCE_EXHAUSTED',
      () => post(http, getUser, LARGE, { ...GOOD, 'content-type': 'application/proto' }),
    ],
  ];

  const onlyRecord = async (): Promise<AccessRecord> => {
    await until(() => records.length > 0, 'there is a record');
    assert.equal(records.length, 1);
    return records.pop() as AccessRecord;
  };

  for (const [what, result, send, fields] of ENDS) {
    it(what, async () => {
      await send();
      const record = await onlyRecord();
      assert.equal(record.result, result);
      assert.match(record.correlationId, UUID);
      assert.deepEqual({ ...record, ...fields }, record);
    });
  }

  it('whose client goes away while it is answered', async () => {
    const before = echo.seen.handled;
    const stop = new AbortController();
    const sent = post(http, getUser, `{"id":"${ID}"}`, GOOD, stop.signal);
    await until(() => echo.seen.handled > before, 'the handler has the call');
    stop.abort();
    await assert.rejects(sent, { name: 'AbortError' });
    assert.equal((await onlyRecord()).result, 'CANCELLED');
  });

  it('whose client goes away before it has sent all', async () => {
    const before = echo.seen.authenticated;
    const request = beginHttp();
    await until(() => echo.seen.authenticated > before, 'the call has begun');
    request.destroy();
    assert.equal((await onlyRecord()).result, 'CANCELLED');

    const stream = beginGrpc();
    await new Promise((resolve) => stream.session?.ping(resolve));
    stream.close();
    assert.equal((await onlyRecord()).result, 'CANCELLED');
  });

  it('whose client goes away while its token is checked, whatever comes of that', async () => {
    const before = echo.seen.authenticated;
    const request = beginHttp({ authorization: 'slow' });
    await until(() => echo.seen.authenticated > before, 'the token is being checked');
    request.destroy();
    await until(() => records.length > 0, 'the end is on record');
    echo.slow.reject(new Refusal('UNAUTHENTICATED', 'too late'));
    await grpc(deleteUser, { id: ID });
    assert.deepEqual(
      records.splice(0).map(({ result }) => result),
      ['CANCELLED', 'INTERNAL'],
    );
  });

  it('for a stream, besides the one of its first message', async () => {
    const stream = streamGrpc(client, watchProject, { projectId: ID }, GOOD);
    await once(stream, 'data');
    assert.equal((await onlyRecord()).result, 'OPENED');
    stream.on('error', () => {}).cancel();
    assert.deepEqual({ ...(await onlyRecord()), result: '' }.projects, [ID]);
  });

  it('without what stands where an id should', async () => {
    const MARKER = 'marker-7f3a91';
    for (const method of METHODS) {
      for (const { kind, keys } of placesOf(method.input)) {
        if (kind !== 'uuid') continue;
        await sendGrpc(client, method, binaryOf(method, withValue({}, keys, MARKER)), { authorization: 'good' });
        const record = await onlyRecord();
        assert.equal(record.result, 'INVALID_FIELD', keyOf(method));
        assert.ok(!JSON.stringify(record).includes(MARKER), keyOf(method));
      }
    }
  });

  it('but none when it reaches no method', async () => {
    const channel = openChannel(echo.grpc);
    await clientOf(Health, channel).check({});
    channel.close();
    await listServices(echo.grpc, 'v1');
    await sendGrpc(client, { ...getUser, name: 'NoSuch' } as DescMethod, Buffer.alloc(0), GOOD);
    for (const path of ['/livez', '/readyz', '/', '/jeex.persistence.v1.UserService/NoSuch']) await fetch(http + path);
    await post(http, getUser, '', { ...GOOD, 'content-type': 'text/plain' });
    await grpc(deleteUser, { id: ID });
    assert.equal((await onlyRecord()).result, 'INTERNAL');
  });

  it('at the end of the service', async () => {
    const stream = streamGrpc(client, watchProject, { projectId: ID }, GOOD);
    await once(stream, 'data');
    assert.equal((await onlyRecord()).result, 'OPENED');
    const drained = echo.doors.drain(10_000);
    await Promise.all([endOf(stream), drained]);
    assert.equal((await onlyRecord()).result, 'SHUTTING_DOWN');
  });
});
