import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, type DescMethod, type Message, toBinary } from '@bufbuild/protobuf';
import { AgentExecutionService } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { DocumentService } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { Refusal } from '../src/refusal.ts';
import { requestIdentifier } from '../src/rpc/identity.ts';
import { parseAddress } from '../src/rpc/listen.ts';
import { createPager, cutPage, pageSize } from '../src/rpc/page.ts';
import { decode, type MethodPlan } from '../src/rpc/plan.ts';
import { compileTextCheck, MAX_STRUCT_BYTES } from '../src/rpc/text.ts';
import { SERVICES } from '../src/service.ts';
import { nested } from './support/echo-wire.ts';

const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const { createUser, updateUser, listUsers } = UserService.method;
const { appendVersion, batchAppendVersions } = DocumentService.method;
const { listExecutions } = AgentExecutionService.method;
const { createExport } = ExportService.method;
const { listProjects } = ProjectService.method;

const refusalOf = (act: () => unknown): Refusal | null => {
  try {
    act();
    return null;
  } catch (error) {
    assert.ok(error instanceof Refusal, String(error));
    return error;
  }
};

const checked = (method: DescMethod, request: object): string | null => {
  const refusal = refusalOf(() => compileTextCheck(method.input)(create(method.input, request as never)));
  return refusal && `${refusal.reason} ${refusal.fields.map(({ field }) => field).join()}`;
};

const numbers = (value: number): object => ({ x: Array.from({ length: 100 }, () => value) });
const filler = (bytes: number): object => ({ x: 'x'.repeat(bytes - '{"x":""}'.length) });

const TEXTS: [name: string, method: DescMethod, request: object, refused: string | null][] = [
  ['ordinary text', createUser, { name: 'Zoë 🦉 \u{10ffff}' }, null],
  ['NUL', createUser, { name: 'a\0' }, 'INVALID_FIELD name'],
  ['a high surrogate alone', createUser, { name: '\ud83e' }, 'INVALID_FIELD name'],
  ['a low surrogate alone', createUser, { name: 'a\udd89b' }, 'INVALID_FIELD name'],
  ['NUL in a nested message', updateUser, { user: { email: '\0' } }, 'INVALID_FIELD user.email'],
  ['NUL in a mask', updateUser, { updateMask: { paths: ['name', '\0'] } }, 'INVALID_FIELD update_mask.paths[1]'],
  ['NUL in an entry', batchAppendVersions, { entries: [{}, { content: '\0' }] }, 'INVALID_FIELD entries[1].content'],
  ['NUL in a Struct', createUser, { profile: { a: ['\0'] } }, 'INVALID_FIELD profile'],
  ['NUL in a key', createUser, { profile: { a: { 'b\0': 1 } } }, 'INVALID_FIELD profile'],
  [
    'a surrogate in an own __proto__ key',
    createUser,
    { profile: JSON.parse('{"__proto__":"\\ud800"}') },
    'INVALID_FIELD profile',
  ],
  ['NaN', appendVersion, { grammarScore: Number.NaN }, 'INVALID_FIELD grammar_score'],
  ['infinity', appendVersion, { readabilityScore: Number.POSITIVE_INFINITY }, 'INVALID_FIELD readability_score'],
  ['NaN in a Struct', appendVersion, { metadata: { a: [Number.NaN] } }, 'INVALID_FIELD metadata'],
  ['a Struct as deep as allowed', createUser, { profile: nested(20) }, null],
  ['a Struct one level deeper', createUser, { profile: nested(21) }, 'INVALID_FIELD profile'],
  ['lists count as levels', createUser, { profile: { a: nestedList(20) } }, 'INVALID_FIELD profile'],
  ['a Struct as large as allowed', createUser, { profile: filler(MAX_STRUCT_BYTES) }, null],
  ['a Struct one byte larger', createUser, { profile: filler(MAX_STRUCT_BYTES + 1) }, 'CONTENT_TOO_LARGE profile'],
  [
    'numbers that take more room when written out',
    createUser,
    { profile: numbers(1e300) },
    'CONTENT_TOO_LARGE profile',
  ],
  ['tiny numbers that do', createUser, { profile: numbers(5e-324) }, 'CONTENT_TOO_LARGE profile'],
  ['as many that do not', createUser, { profile: numbers(1e20) }, null],
  [
    'a time after the year 9999',
    listExecutions,
    { startedAfter: { seconds: 253402300800n } },
    'INVALID_FIELD started_after',
  ],
  ['a time with too many nanos', listExecutions, { startedAfter: { nanos: 1e9 } }, 'INVALID_FIELD started_after'],
  ['a length of time of both signs', createExport, { ttl: { seconds: 1n, nanos: -1 } }, 'INVALID_FIELD ttl'],
  ['a length of time', createExport, { ttl: { seconds: -1n, nanos: -1 } }, null],
];

test('text, numbers, times and Structs are checked wherever they stand', () => {
  for (const [name, method, request, refused] of TEXTS) assert.equal(checked(method, request), refused, name);
});

test('every request of the contract has a text check', () => {
  for (const { methods } of SERVICES)
    for (const { input } of methods) assert.doesNotThrow(() => compileTextCheck(input));
});

test('text that is not UTF-8 is found in the bytes, by path', () => {
  const plan = (method: DescMethod, checkWire: MethodPlan['checkWire'] = null) => ({ method, checkWire }) as MethodPlan;
  const bytes = toBinary(
    batchAppendVersions.input,
    create(batchAppendVersions.input, { entries: [{ content: 'fine' }, { content: 'damaged' }] }),
  );
  bytes[bytes.lastIndexOf('m'.charCodeAt(0))] = 0xff;
  const refusal = refusalOf(() => decode(plan(batchAppendVersions), bytes));
  assert.deepEqual(refusal?.fields, [{ field: 'entries[1].content', description: 'must be valid UTF-8' }]);
});

const requestIdentity = requestIdentifier(Buffer.alloc(32, 1));
const identity = (method: DescMethod, request: object) =>
  requestIdentity(method.name, method.input, create(method.input, request as never) as Message);

test('a request is the same request however it is written, and another one when anything differs', () => {
  const request = { email: 'a@b.example', name: 'Ada', profile: { a: { b: 1, c: [2] }, d: null }, requestId: ID };
  const same = {
    requestId: ID.toUpperCase(),
    profile: { d: null, a: { c: [2], b: 1 } },
    name: 'Ada',
    email: 'a@b.example',
  };
  const first = identity(createUser, request);
  const second = identity(createUser, same);
  assert.equal(second?.id, ID);
  assert.deepEqual(second?.hash, first?.hash);
  assert.deepEqual(second?.key, first?.key);
  assert.notDeepEqual(first?.hash, first?.key);
  assert.equal(first?.key.length, 32);
  const others: object[] = [
    { ...request, name: 'Bob' },
    { ...request, profile: { a: { b: 1, c: [3] }, d: null } },
    { ...request, profile: { a: { b: 1, c: [2] } } },
    { ...request, profile: undefined },
  ];
  for (const other of others) assert.notDeepEqual(identity(createUser, other)?.hash, first?.hash);
  const again = identity(createUser, { ...request, requestId: ID.replace('0', '1') });
  assert.deepEqual(again?.hash, first?.hash);
  assert.notDeepEqual(again?.key, first?.key, 'two replies are not sealed with one key');
  assert.notDeepEqual(requestIdentity('Other', createUser.input, create(createUser.input, request))?.hash, first?.hash);
  assert.equal(identity(createUser, { ...request, requestId: '' }), null);
});

test('an optional field that is absent makes another request than one that is zero', () => {
  const base = { projectId: ID, documentType: 'idea', content: 'x', requestId: ID };
  assert.notDeepEqual(
    identity(appendVersion, base)?.hash,
    identity(appendVersion, { ...base, expectedVersion: 0 })?.hash,
  );
});

const pager = createPager(Buffer.alloc(32, 1));
const asker = { method: listUsers, caller: 'orchestrator', actor: null };
const users = (fields: object) => create(listUsers.input, fields);

test('a page token is read back for the same request, whatever its page size', () => {
  const keyset = ['2026-11-22T00:00:00.000001Z', ID, null, 7];
  const token = pager.write(asker, users({ emailPrefix: 'a', pageSize: 10 }), keyset);
  assert.match(token, /^[\w-]+$/);
  const next = users({ emailPrefix: 'a', pageSize: 20, pageToken: token });
  assert.deepEqual(pager.read(asker, next, token), keyset);
  assert.equal(pager.read(asker, next, ''), null);
  assert.equal(pager.write(asker, next, null), '');
});

test('a page token that is not the request’s own is INVALID_PAGE_TOKEN', () => {
  const request = users({ emailPrefix: 'a' });
  const token = pager.write(asker, request, [ID]);
  const forged = createPager(Buffer.alloc(32, 2)).write(asker, request, [ID]);
  const last = token.at(-1) === 'A' ? 'B' : 'A';
  const tokens = [
    forged,
    'x',
    token.slice(0, -1),
    token.slice(0, 20),
    `${token.slice(0, -1)}${last}`,
    `${token}=`,
    ` ${token}`,
  ];
  for (const wrong of [...tokens, `${token}AAAA`, '\u{1f989}']) {
    assert.equal(refusalOf(() => pager.read(asker, request, wrong))?.reason, 'INVALID_PAGE_TOKEN', wrong);
  }
  for (let i = 0; i < token.length; i += 1) {
    const flipped = token.slice(0, i) + (token[i] === 'A' ? 'B' : 'A') + token.slice(i + 1);
    assert.equal(refusalOf(() => pager.read(asker, request, flipped))?.reason, 'INVALID_PAGE_TOKEN', flipped);
  }
  const elsewhere = [
    () => pager.read(asker, users({ emailPrefix: 'b' }), token),
    () => pager.read({ ...asker, caller: 'another' }, request, token),
    () => pager.read({ ...asker, actor: ID }, request, token),
    () => pager.read({ ...asker, method: listProjects }, create(listProjects.input), token),
  ];
  for (const read of elsewhere) assert.equal(refusalOf(read)?.reason, 'INVALID_PAGE_TOKEN');
});

test('a page has the asked size, ends early at 3 MiB, and holds at least one row', () => {
  assert.deepEqual([0, 1, 1000, 1001, 2 ** 31 - 1].map(pageSize), [50, 1, 1000, 1000, 1000]);
  const cut = (sizes: number[], limit: number) => {
    const { rows, next } = cutPage(
      sizes.map((size, id) => ({ id, size })),
      limit,
      ({ size }) => size,
      ({ id }) => [id],
    );
    return [rows.length, next];
  };
  const megabyte = 1024 * 1024;
  assert.deepEqual(cut([], 2), [0, null]);
  assert.deepEqual(cut([1, 1], 2), [2, null]);
  assert.deepEqual(cut([1, 1, 1], 2), [2, [1]]);
  assert.deepEqual(cut([megabyte, megabyte, megabyte], 5), [3, null]);
  assert.deepEqual(cut([megabyte, megabyte, megabyte, 1], 5), [3, [2]]);
  assert.deepEqual(cut([4 * megabyte, 1], 5), [1, [0]]);
});

test('an address is host:port, IPv6 in brackets', () => {
  assert.deepEqual(parseAddress('127.0.0.1:0'), { host: '127.0.0.1', port: 0 });
  assert.deepEqual(parseAddress('[::1]:50051'), { host: '::1', port: 50051 });
  for (const wrong of ['', ':1', '::1:1', 'host', 'host:', 'host:x', 'host:65536'])
    assert.throws(() => parseAddress(wrong));
});

function nestedList(depth: number): unknown[] {
  return depth === 1 ? [] : [nestedList(depth - 1)];
}
