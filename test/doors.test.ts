import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { DescMethod } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { status } from '@grpc/grpc-js';
import { AgentExecutionService } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ChangeService } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { DatabaseService } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { DocumentService } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { REASONS, type Reason, Refusal } from '../src/refusal.ts';
import { CODES, Code } from '../src/rpc/errors.ts';
import {
  callGrpc,
  encode,
  pathOf,
  post,
  type Refused,
  refusedGrpc,
  refusedHttp,
  sendGrpc,
  useEcho,
} from './support/echo.ts';
import { grpcWeb, listBomb, nested, streamError } from './support/echo-wire.ts';

const { getUser, createUser, updateUser, batchGetUsers } = UserService.method;
const { appendVersion, batchAppendVersions } = DocumentService.method;
const { createExecution, listExecutions } = AgentExecutionService.method;
const { createExport } = ExportService.method;
const { createProject } = ProjectService.method;
const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const CORRELATION = '0190f3a1-7b8c-7d2e-8f3a-000000000001';

let next: Error | null = null;
const echo = await useEcho({
  'UserService.getUser': async (request: { id: string }) => {
    if (next) throw next;
    return { user: { id: request.id, name: 'Ada' } };
  },
  'UserService.createUser': async (request: { name: string; profile?: object }) => {
    if (next) throw next;
    return { user: { name: request.name, profile: request.profile } };
  },
  'ProjectService.createProject': async () => {
    throw new Error('secret of the driver');
  },
  'UserService.batchGetUsers': async (request: { ids: string[] }) => ({ users: request.ids.map((id) => ({ id })) }),
});
const { client, http } = echo;

/** The same refusal through both doors: Connect with JSON, Connect with binary, gRPC-Web would be a third of HTTP's. */
const refusedByBoth = async (method: typeof getUser | typeof createUser, request: object): Promise<Refused> => {
  const headers = { 'x-correlation-id': CORRELATION };
  const overGrpc = refusedGrpc(await sendGrpc(client, method, encode(method, request), headers));
  const overJson = await refusedHttp(await post(http, method, JSON.stringify(request), headers));
  const binary = { ...headers, 'content-type': 'application/proto' };
  const overBinary = await refusedHttp(await post(http, method, new Uint8Array(encode(method, request)), binary));
  // When to send it again is drawn anew for each refusal.
  const alike = ({ pushback, ...rest }: Refused) => ({ ...rest, pushed: pushback !== undefined });
  assert.deepEqual(alike(overJson), alike(overGrpc));
  assert.deepEqual(alike(overBinary), alike(overGrpc));
  assert.equal(overGrpc.correlationId, CORRELATION);
  return overGrpc;
};

test('a call is answered the same over gRPC, Connect JSON, Connect GET and gRPC-Web', async () => {
  const overGrpc = await callGrpc(client, getUser, { id: ID });
  assert.equal(overGrpc.user?.name, 'Ada');
  const overJson = await post(http, getUser, JSON.stringify({ id: ID }));
  assert.deepEqual(await overJson.json(), { user: { id: ID, name: 'Ada' } });
  assert.match(overJson.headers.get('x-correlation-id') ?? '', /^[0-9a-f-]{14}7/);
  const query = `?connect=v1&encoding=json&message=${encodeURIComponent(JSON.stringify({ id: ID }))}`;
  const overGet = await fetch(http + pathOf(getUser) + query);
  assert.deepEqual(await overGet.json(), { user: { id: ID, name: 'Ada' } });
  const web = await grpcWeb(http, getUser, encode(getUser, { id: ID }));
  assert.equal(web.trailer['grpc-status'], '0');
});

test('every reason has its code and its details on both doors, mutations their outcome', async () => {
  for (const reason of REASONS) {
    next = new Refusal(reason, `refused: ${reason}`, { metadata: { current_version: '3' } });
    const read = await refusedByBoth(getUser, { id: ID });
    assert.equal(read.code, Code[CODES[reason]]);
    assert.equal(read.reason, reason);
    assert.deepEqual(read.metadata, { current_version: '3' });
    const retryable: Reason[] = ['OVERLOADED', 'CONTENTION', 'DATABASE_UNAVAILABLE', 'SHUTTING_DOWN'];
    assert.equal(read.retry, retryable.includes(reason));
    assert.equal(read.pushback !== undefined, retryable.includes(reason));
    const write = await refusedByBoth(createUser, { email: 'a@b.example', name: 'Ada' });
    assert.deepEqual(write.metadata, { current_version: '3', outcome: 'not_applied' });
  }
  next = null;
});

test('an unexpected error is INTERNAL without its message, and its cause is in the log with the correlation id', async () => {
  const headers = { 'x-correlation-id': CORRELATION };
  const request = { name: 'p', language: 'en' };
  for (const refused of [
    refusedGrpc(await sendGrpc(client, createProject, encode(createProject, request), headers)),
    await refusedHttp(await post(http, createProject, JSON.stringify(request), headers)),
  ]) {
    assert.equal(refused.code, status.INTERNAL);
    assert.equal(refused.reason, 'INTERNAL');
    assert.equal(refused.metadata.outcome, 'unknown');
    assert.doesNotMatch(refused.message, /secret/);
  }
  const logged = echo.lines.filter(({ method }) => method === 'jeex.persistence.v1.ProjectService/CreateProject');
  assert.deepEqual(
    logged.map(({ level, code, correlationId }) => [level, code, correlationId]),
    [
      ['error', 'INTERNAL', CORRELATION],
      ['error', 'INTERNAL', CORRELATION],
    ],
  );
  assert.match(JSON.stringify(logged[0]), /secret of the driver/);
});

test('a field that breaks its rule is named by its path, on both doors', async () => {
  const wrongId = await refusedByBoth(getUser, { id: 'x' });
  assert.deepEqual([wrongId.code, wrongId.reason, wrongId.fields], [status.INVALID_ARGUMENT, 'INVALID_FIELD', ['id']]);
  const nul = await refusedByBoth(createUser, { email: 'a@b.example', name: 'a\0b' });
  assert.deepEqual([nul.reason, nul.fields], ['INVALID_FIELD', ['name']]);
  const deep = await refusedByBoth(createUser, { email: 'a@b.example', name: 'a', profile: nested(21) });
  assert.deepEqual([deep.reason, deep.fields], ['INVALID_FIELD', ['profile']]);
  const large = await refusedByBoth(createUser, {
    email: 'a@b.example',
    name: 'a',
    profile: { x: 'x'.repeat(17_000) },
  });
  assert.deepEqual([large.reason, large.fields], ['CONTENT_TOO_LARGE', ['profile']]);
});

test('content over its limit is CONTENT_TOO_LARGE on both doors', async () => {
  const request = { projectId: ID, documentType: 'idea', content: 'x'.repeat(3 * 1024 * 1024 + 1) };
  for (const refused of [
    refusedGrpc(await sendGrpc(client, appendVersion, encode(appendVersion, request))),
    await refusedHttp(await post(http, appendVersion, JSON.stringify(request))),
  ]) {
    assert.deepEqual([refused.reason, refused.fields], ['CONTENT_TOO_LARGE', ['content']]);
  }
});

test('what cannot be decoded is INVALID_FIELD with the field, whatever the protocol', async () => {
  const invalidUtf8 = new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .bytes(Buffer.from([0xff, 0xfe]))
    .finish();
  const expected = [status.INVALID_ARGUMENT, 'INVALID_FIELD', ['id']];
  const seen = ({ code, reason, fields, correlationId }: Refused) => {
    assert.ok(correlationId);
    return [code, reason, fields];
  };
  assert.deepEqual(seen(refusedGrpc(await sendGrpc(client, getUser, invalidUtf8))), expected);
  const proto = { 'content-type': 'application/proto' };
  assert.deepEqual(seen(await refusedHttp(await post(http, getUser, invalidUtf8, proto))), expected);
  const zipped = { ...proto, 'content-encoding': 'gzip' };
  assert.deepEqual(seen(await refusedHttp(await post(http, getUser, gzipSync(invalidUtf8), zipped))), expected);
  const query = `?connect=v1&encoding=proto&base64=1&message=${Buffer.from(invalidUtf8).toString('base64url')}`;
  assert.deepEqual(seen(await refusedHttp(await fetch(http + pathOf(getUser) + query))), expected);
  const web = await grpcWeb(http, getUser, invalidUtf8);
  assert.deepEqual([web.refused?.code, web.refused?.reason, web.refused?.fields], expected);
  assert.ok(web.refused?.correlationId);
  assert.deepEqual(seen(await refusedHttp(await post(http, getUser, '{"id": 7}'))), expected);
  assert.deepEqual(seen(await refusedHttp(await post(http, getUser, '{"id": "\\ud800"}'))), expected);
  assert.deepEqual(seen(await streamError(http, ChangeService.method.watchProject, '{"projectId": 7}')), [
    3,
    'INVALID_FIELD',
    ['project_id'],
  ]);
});

const JSON_FAULTS: readonly (readonly [method: DescMethod, json: string, field: string])[] = [
  [getUser, '{"id": 7}', 'id'],
  [getUser, '{"idd": "x"}', 'idd'],
  [getUser, 'null', ''],
  [batchGetUsers, '{"ids": ["a", "b", 3, "d", 5]}', 'ids[2]'],
  [batchGetUsers, '{"ids": "a"}', 'ids'],
  [appendVersion, `{"projectId": "${ID}", "expectedVerison": 0}`, 'expectedVerison'],
  [appendVersion, `{"projectId": "${ID}", "project_id": "${ID}"}`, 'project_id'],
  [appendVersion, '{"metadata": [], "reason": "fine"}', 'metadata'],
  [batchAppendVersions, '{"entries": [{"content": 1}]}', 'entries[0].content'],
  [batchAppendVersions, '{"entries": [{}, {"documentType": "a", "document_type": "b"}]}', 'entries[1].document_type'],
  [batchAppendVersions, '{"entries": [{}, {"expectedVersions": 0}, {"content": 1}]}', 'entries[1].expectedVersions'],
  [batchAppendVersions, '{"entries": [{}, null]}', 'entries[1]'],
  [createExecution, '{"input": {"data": "%"}}', 'input.data'],
  [listExecutions, '{"startedAfter": "yesterday"}', 'started_after'],
  [listExecutions, '{"statuses": ["EXECUTION_STATUS_FAILED", "LOST"]}', 'statuses[1]'],
  [createExport, '{"ttl": "1h"}', 'ttl'],
  [updateUser, '{"updateMask": "last_name"}', 'update_mask'],
  [updateUser, '{"updateMask": 7}', 'update_mask'],
  [updateUser, '{"user": {"profile": "x"}}', 'user.profile'],
];

test('a mistake in JSON is named by its path in the proto', async () => {
  for (const [method, json, field] of JSON_FAULTS) {
    const bodies: [string | Buffer<ArrayBuffer>, Record<string, string>][] = [
      [json, {}],
      [gzipSync(json) as Buffer<ArrayBuffer>, { 'content-encoding': 'gzip' }],
    ];
    for (const [body, headers] of bodies) {
      const { reason, fields } = await refusedHttp(await post(http, method, body, headers));
      assert.deepEqual([reason, fields], ['INVALID_FIELD', field === '' ? [] : [field]], json);
    }
  }
  const query = `?connect=v1&encoding=json&message=${encodeURIComponent('{"idd": "x"}')}`;
  assert.deepEqual((await refusedHttp(await fetch(http + pathOf(getUser) + query))).fields, ['idd']);
  const { watchProjects } = ChangeService.method;
  assert.deepEqual((await streamError(http, watchProjects, '{"cursors": [{}, {"after": 1}]}')).fields, [
    'cursors[1].after',
  ]);
});

test('a body that is no message at all is INVALID_FIELD without a field, never INTERNAL', async () => {
  const proto = { 'content-type': 'application/proto' };
  const bodies: [string | Buffer<ArrayBuffer>, Record<string, string>][] = [
    ['{', {}],
    ['[]', {}],
    [Buffer.from([0x0a]), proto],
    [Buffer.from([0xff, 0xff, 0xff]), proto],
    [Buffer.from('not gzip'), { ...proto, 'content-encoding': 'gzip' }],
    [gzipSync('cut').subarray(0, 15) as Buffer<ArrayBuffer>, { ...proto, 'content-encoding': 'gzip' }],
  ];
  for (const [body, headers] of bodies) {
    const refused = await refusedHttp(await post(http, getUser, body, headers));
    assert.deepEqual([refused.code, refused.reason], [status.INVALID_ARGUMENT, 'INVALID_FIELD'], String(body));
    assert.ok(refused.correlationId);
  }
  const notUtf8 = Buffer.from('{"email": "a@b.example", "name": "\xff"}', 'latin1');
  assert.equal((await refusedHttp(await post(http, createUser, notUtf8))).reason, 'INVALID_FIELD');
  const overGrpc = refusedGrpc(await sendGrpc(client, getUser, Buffer.from([0xff, 0xff, 0xff])));
  assert.deepEqual([overGrpc.code, overGrpc.reason], [status.INVALID_ARGUMENT, 'INVALID_FIELD']);
});

test('a Value without a kind is refused in every binary form', async () => {
  const entry = new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .string('key')
    .tag(2, WireType.LengthDelimited)
    .fork()
    .join();
  const struct = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(entry.finish()).finish();
  const request = new BinaryWriter()
    .raw(encode(createUser, { email: 'a@b.example', name: 'Ada' }))
    .tag(3, WireType.LengthDelimited)
    .bytes(struct)
    .finish();
  const proto = { 'content-type': 'application/proto' };
  for (const refused of [
    refusedGrpc(await sendGrpc(client, createUser, request)),
    await refusedHttp(await post(http, createUser, request, proto)),
    await refusedHttp(await post(http, createUser, gzipSync(request), { ...proto, 'content-encoding': 'gzip' })),
    (await grpcWeb(http, createUser, request)).refused,
  ]) {
    assert.deepEqual([refused?.reason, refused?.fields], ['INVALID_FIELD', ['profile']]);
  }
  const answer = await callGrpc(client, createUser, { email: 'a@b.example', name: 'Ada', profile: { key: null } });
  assert.deepEqual(answer.user?.profile, { key: null });
});

test('what is nested 10 000 deep, or larger than 4 MiB, is refused on both doors and the service goes on', async () => {
  const deepJson = `{"email":"a@b.example","name":"a","profile":${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}}`;
  const overJson = await refusedHttp(await post(http, createUser, deepJson));
  assert.deepEqual([overJson.code, overJson.reason], [status.INVALID_ARGUMENT, 'INVALID_FIELD']);
  assert.deepEqual(overJson.fields, ['profile']);
  const unknownKey = await refusedHttp(await post(http, getUser, `{"x":${'['.repeat(10_000)}${']'.repeat(10_000)}}`));
  assert.deepEqual([unknownKey.code, unknownKey.fields], [status.INVALID_ARGUMENT, ['x']]);

  const bomb = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(listBomb(10_000)).finish();
  for (const refused of [
    refusedGrpc(await sendGrpc(client, createUser, bomb)),
    await refusedHttp(await post(http, createUser, bomb, { 'content-type': 'application/proto' })),
  ]) {
    assert.deepEqual([refused.code, refused.reason], [status.INVALID_ARGUMENT, 'INVALID_FIELD']);
    assert.deepEqual(refused.fields, ['profile']);
  }

  const large = Buffer.alloc(5 * 1024 * 1024, 'x');
  assert.equal(refusedGrpc(await sendGrpc(client, getUser, large)).code, status.RESOURCE_EXHAUSTED);
  const tooLarge = await refusedHttp(await post(http, getUser, `"${'x'.repeat(10_000_000)}"`));
  assert.deepEqual([tooLarge.code, tooLarge.reason], [status.RESOURCE_EXHAUSTED, undefined]);
  const inflating = gzipSync(Buffer.alloc(50_000_000));
  const zipped = { 'content-type': 'application/proto', 'content-encoding': 'gzip' };
  assert.equal((await refusedHttp(await post(http, getUser, inflating, zipped))).code, status.RESOURCE_EXHAUSTED);
  assert.equal((await callGrpc(client, getUser, { id: ID })).user?.id, ID);
});

test('headers that are no UUIDs are refused, and the error has a correlation id of its own', async () => {
  for (const name of ['x-correlation-id', 'x-actor-id']) {
    for (const refused of [
      refusedGrpc(await sendGrpc(client, getUser, encode(getUser, { id: ID }), { [name]: 'nobody' })),
      await refusedHttp(await post(http, getUser, JSON.stringify({ id: ID }), { [name]: 'nobody' })),
    ]) {
      assert.deepEqual([refused.reason, refused.fields], ['INVALID_FIELD', [name]]);
      assert.match(refused.correlationId ?? '', /^[0-9a-f-]{36}$/);
    }
  }
});

test('a method for the system refuses an actor before it reads the body', async () => {
  const headers = { 'x-actor-id': ID };
  for (const refused of [
    refusedGrpc(await sendGrpc(client, batchGetUsers, Buffer.from([0xff]), headers)),
    await refusedHttp(await post(http, batchGetUsers, '{', headers)),
  ]) {
    assert.deepEqual([refused.code, refused.reason], [status.PERMISSION_DENIED, 'SCOPE_REQUIRED']);
  }
});

test('UUIDs reach the handler in lower case', async () => {
  const answer = await callGrpc(client, batchGetUsers, { ids: [ID.toUpperCase()] });
  assert.equal(answer.users[0]?.id, ID);
  assert.equal((await callGrpc(client, getUser, { id: ID.toUpperCase() })).user?.id, ID);
});

test('an unknown path is 404, an unknown method of gRPC UNIMPLEMENTED', async () => {
  assert.equal((await fetch(`${http}/nothing`)).status, 404);
  const unknown = { ...DatabaseService.method.getServerInfo, name: 'Nothing' };
  assert.equal((await sendGrpc(client, unknown, Buffer.alloc(0))).error?.code, status.UNIMPLEMENTED);
});
