import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { type DescMethod, ScalarType } from '@bufbuild/protobuf';
import { listBomb, nested } from './support/echo-wire.ts';
import { newWorld, useExamples } from './support/examples.ts';
import { type Place, placesOf, withValue } from './support/fields.ts';
import { type Fields, isRead, keyOf, METHODS, methodOf } from './support/methods.ts';
import { binaryOf, type Ended, jsonOf, rawGrpc, rawJson } from './support/raw.ts';
import { useService } from './support/service.ts';

const service = await useService({ env: { POOL_SIZE: '4' } });
const { projects, users } = service;

const examples = useExamples(service);
const makeExample = async (method: DescMethod) => {
  const { request, options } = await examples(method);
  return { request: request as Fields, actor: options.actor };
};

const kept = new Map<DescMethod, ReturnType<typeof makeExample>>();
/** A call that would succeed: a new one where an attack may use it up, else always the same. */
const exampleOf = (method: DescMethod, fresh = false): ReturnType<typeof makeExample> => {
  const made = (!fresh && kept.get(method)) || makeExample(method);
  kept.set(method, made);
  return made;
};

/** What a request with an odd value may end in: an answer, or a refusal that is the caller's. */
const CALM: ReadonlySet<number> = new Set([0, 3, 5, 6, 7, 8, 9, 10]);
const calm = (ended: Ended, what: string) => assert.ok(CALM.has(ended.code), `${what}: ${JSON.stringify(ended)}`);

/** Refused as invalid, with the field's name. */
const refused = (ended: Ended, { path }: Pick<Place, 'path'>, what: string) => {
  assert.equal(ended.code, 3, `${what}: ${JSON.stringify(ended)}`);
  assert.match(ended.reason ?? '', /^(INVALID_FIELD|CONTENT_TOO_LARGE|INVALID_PAGE_TOKEN)$/, what);
  assert.ok(ended.fields.includes(path), `${what}: ${path} is not among ${ended.fields.join()}`);
};

/** Stands in a message for what no encoder writes, to be replaced by bytes of the same length. */
const MARK = '~'.repeat(24);
const marked = (bytes: Buffer, ...put: number[]): Buffer => {
  const at = bytes.indexOf(MARK);
  assert.ok(at >= 0, 'the mark is in the message');
  Buffer.from(put).copy(bytes, at);
  return bytes;
};

const NOT_UTF8: Readonly<Record<string, readonly number[]>> = {
  'no UTF-8': [0xff, 0xfe],
  'an overlong NUL': [0xc0, 0x80],
  'a lone surrogate': [0xed, 0xa0, 0x80],
  'half a character': [0xf0, 0x9f, 0x98],
};

const ODD_TEXTS = [
  '',
  ' ',
  "Robert'); drop table users; --",
  '$1 $$ {x} %s \\ \\0 \\u0000 "quoted" {"a":[1]} null',
  'x'.repeat(300_000),
  '😀'.repeat(300),
  'idea\n',
  '\u0001\u001f\u007f\u0085\u2028\uffff',
  '../../etc/passwd',
];
const NO_UUIDS = [
  'x',
  '0',
  'null',
  '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f9',
  '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90\n',
  ' 0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90',
  '{0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90}',
  'urn:uuid:0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90',
  '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8fgg',
];
const INT32 = [-1, -(2 ** 31), 2 ** 31 - 1];
const INT64 = [-1n, -(2n ** 63n), 2n ** 63n - 1n];
const TIMES = [
  { seconds: 2n ** 63n - 1n, nanos: 0 },
  { seconds: -(2n ** 63n), nanos: 0 },
  { seconds: 1n, nanos: -1 },
  { seconds: 1n, nanos: 1_000_000_000 },
  { seconds: 1n, nanos: -(2 ** 31) },
];

/** What is tried in a field of each kind. */
const ATTACKS: Readonly<Record<Place['kind'], (method: DescMethod, place: Place) => Promise<void>>> = {
  text: async (method, place) => {
    const { request, actor } = await exampleOf(method, !isRead(method));
    await malformedText(method, place, request, actor);
    for (const text of ODD_TEXTS) {
      const what = `${place.path} = ${JSON.stringify(text.slice(0, 20))}`;
      calm(await rawGrpc(service, method, binaryOf(method, withValue(request, place.keys, text)), actor), what);
    }
  },

  uuid: async (method, place) => {
    const { request, actor } = await exampleOf(method);
    await malformedText(method, place, request, actor);
    for (const text of NO_UUIDS) {
      const asked = withValue(request, place.keys, text);
      refused(await rawGrpc(service, method, binaryOf(method, asked), actor), place, text);
    }
    const empty = withValue(request, place.keys, '');
    calm(await rawGrpc(service, method, binaryOf(method, empty), actor), `${place.path} is empty`);
    const unknown = withValue(request, place.keys, randomUUID());
    calm(await rawGrpc(service, method, binaryOf(method, unknown), actor), `${place.path} is unknown`);
  },

  number: async (method, place) => {
    const { request, actor } = await exampleOf(method, !isRead(method));
    for (const value of isLong(method, place) ? INT64 : INT32) {
      const ended = await rawGrpc(service, method, binaryOf(method, withValue(request, place.keys, value)), actor);
      if (place.path === 'page_size' && value < 0) refused(ended, place, `${value}`);
      else calm(ended, `${place.path} = ${value}`);
    }
    const json = jsonOf(method, withValue(request, place.keys, isLong(method, place) ? 1_234_567n : 1_234_567));
    for (const text of ['1e99', '"x"', '1.5', '{}']) {
      const ended = await rawJson(service, method, json.replace(/"?1234567"?/, text), actor);
      assert.deepEqual([ended.code, ended.reason], [3, 'INVALID_FIELD'], `${place.path} = ${text}`);
    }
  },

  double: async (method, place) => {
    const { request, actor } = await exampleOf(method);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1, 1e308]) {
      const asked = withValue(request, place.keys, value);
      refused(await rawGrpc(service, method, binaryOf(method, asked), actor), place, `${value}`);
      refused(await rawJson(service, method, jsonOf(method, asked), actor), place, `${value}`);
    }
  },

  enum: async (method, place) => {
    const { request, actor } = await exampleOf(method);
    for (const value of [99, -1, 2 ** 31 - 1]) {
      const asked = withValue(request, place.keys, value);
      refused(await rawGrpc(service, method, binaryOf(method, asked), actor), place, `${value}`);
    }
  },

  struct: async (method, place) => {
    const { request, actor } = await exampleOf(method);
    const grpc = (value: unknown, change = (bytes: Buffer) => bytes) =>
      rawGrpc(service, method, change(binaryOf(method, withValue(request, place.keys, value))), actor);
    const json = (value: unknown, change = (text: string) => text) =>
      rawJson(service, method, change(jsonOf(method, withValue(request, place.keys, value))), actor);
    for (const bad of [{ 'k\0': 1 }, { a: '\0' }, { a: [{ b: ['\0'] }] }, nested(21), { a: 'x'.repeat(16 * 1024) }]) {
      const what = JSON.stringify(bad).slice(0, 30);
      refused(await grpc(bad), place, what);
      refused(await json(bad), place, what);
    }
    for (const [what, bytes] of Object.entries(NOT_UTF8)) {
      refused(await grpc({ a: MARK }, (message) => marked(message, ...bytes)), place, `a value of ${what}`);
      refused(await grpc({ [MARK]: 1 }, (message) => marked(message, ...bytes)), place, `a key of ${what}`);
    }
    for (const name of ['"\\ud800"', '"\\udc00x"']) {
      const swap = (text: string) => text.replace(`"${MARK}"`, name);
      assert.equal((await json({ a: MARK }, swap)).code, 3);
      assert.equal((await json({ [MARK]: 1 }, swap)).code, 3);
    }
    // The tag of a string value and its length, then 24 bytes: made a Value without a kind by an unknown field number.
    const kindless = (message: Buffer) => {
      message[message.indexOf(MARK) - 2] = (15 << 3) | 2;
      return message;
    };
    refused(await grpc({ a: MARK }, kindless), place, 'a Value without a kind');
    for (const number of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const odd = (message: Buffer) => {
        const sought = Buffer.alloc(8);
        sought.writeDoubleLE(1234.5678);
        message.writeDoubleLE(number, message.indexOf(sought));
        return message;
      };
      refused(await grpc({ a: 1234.5678 }, odd), place, `${number}`);
    }
    calm(await grpc({ a: listOf(0, 3000) }), 'many numbers');
    assert.equal((await json({ a: MARK }, (text) => text.replace(`"${MARK}"`, deepJson(10_000)))).code, 3);
  },

  time: async (method, place) => {
    const { request, actor } = await exampleOf(method);
    for (const value of TIMES) {
      const ended = await rawGrpc(service, method, binaryOf(method, withValue(request, place.keys, value)), actor);
      if (isOutput(place)) calm(ended, place.path);
      else refused(ended, place, `${value.seconds} s ${value.nanos} ns`);
    }
    const json = jsonOf(method, request).replace(
      '{',
      `{${jsonField(place)}:"yesterday"${Object.keys(request).length ? ',' : ''}`,
    );
    if (place.keys.length === 1) assert.equal((await rawJson(service, method, json, actor)).code, 3);
  },

  mask: async (method, place) => {
    const { request, actor } = await exampleOf(method);
    for (const path of ['', '*', '.', 'nope', 'name.first', 'a'.repeat(100_000), "'; --", 'name,name', '\uffff']) {
      const asked = withValue(request, place.keys, { paths: [path] });
      refused(await rawGrpc(service, method, binaryOf(method, asked), actor), place, path.slice(0, 20));
    }
    const many = withValue(request, place.keys, { paths: listOf('name', 50_000) });
    calm(await rawGrpc(service, method, binaryOf(method, many), actor), 'a path many times');
  },
};

const listOf = <T>(item: T, length: number): T[] => Array.from({ length }, () => item);
const deepJson = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
const LARGE_MESSAGE = Buffer.alloc(5 * 1024 * 1024, 'x');
const LARGE_JSON = Buffer.from(`{"x":"${'x'.repeat(10_000_000)}"}`);
/** Lists in a list, 5 000 deep, where a request has its first field. */
const DEEP_MESSAGE = Buffer.concat([Buffer.from([(1 << 3) | 2]), listBomb(5000).subarray(1)]);
const jsonField = ({ keys }: Place): string => JSON.stringify(keys[0]);
/** Fields of a resource that only answers fill: what a request says there is looked at for its form alone. */
const isOutput = ({ keys }: Place): boolean => keys[0] === 'user' || keys[0] === 'project';

const isLong = (method: DescMethod, { keys }: Place): boolean => {
  let desc = method.input;
  for (const key of keys) {
    const field = desc.fields.find(({ localName }) => localName === key);
    if (field?.message) desc = field.message;
    else if (field) return field.scalar === ScalarType.INT64;
  }
  return false;
};

/** Text that is no text, through the door that can carry it. */
const malformedText = async (method: DescMethod, place: Place, request: Fields, actor: string | undefined) => {
  const nul = withValue(request, place.keys, 'a\0b');
  refused(await rawGrpc(service, method, binaryOf(method, nul), actor), place, 'NUL over gRPC');
  refused(await rawJson(service, method, jsonOf(method, nul), actor), place, 'NUL over JSON');
  const mark = withValue(request, place.keys, MARK);
  for (const [what, bytes] of Object.entries(NOT_UTF8)) {
    refused(await rawGrpc(service, method, marked(binaryOf(method, mark), ...bytes), actor), place, what);
  }
  const lone = jsonOf(method, mark).replace(MARK, 'a\\ud800b');
  const ended = await rawJson(service, method, lone, actor);
  assert.deepEqual([ended.code, ended.reason], [3, 'INVALID_FIELD'], `a lone surrogate in ${place.path}`);
};

for (const method of METHODS) {
  describe(keyOf(method), () => {
    for (const place of placesOf(method.input)) {
      it(`bears anything in ${place.path}`, async () => {
        await ATTACKS[place.kind](method, place);
      });
    }

    it('bears a message that is too large, too deep, or none', async () => {
      const { actor } = await exampleOf(method);
      assert.equal((await rawGrpc(service, method, LARGE_MESSAGE, actor)).code, 8);
      assert.equal((await rawJson(service, method, LARGE_JSON, actor)).code, 8);
      calm(await rawJson(service, method, deepJson(10_000), actor), 'deep JSON');
      assert.equal((await rawJson(service, method, '[', actor)).code, 3);
      assert.equal((await rawJson(service, method, '"x"', actor)).code, 3);
      assert.equal((await rawGrpc(service, method, Buffer.from([0xff, 0xff, 0xff, 0xff]), actor)).code, 3);
      calm(await rawGrpc(service, method, DEEP_MESSAGE, actor), 'a deep message');
      calm(await rawGrpc(service, method, Buffer.alloc(0), actor), 'an empty message');
      assert.ok(await users.listUsers({ pageSize: 1 }), 'the service goes on');
    });
  });
}

describe('a page token', () => {
  const lists = METHODS.filter(({ input }) => input.fields.some(({ name }) => name === 'page_token'));

  it('of another list, forged, tampered with or cut is refused by every list', async () => {
    const { nextPageToken: token } = await users.listUsers({ pageSize: 1 });
    assert.notEqual(token, '');
    const flipped = (token.startsWith('A') ? 'B' : 'A') + token.slice(1);
    const forged = Buffer.from(JSON.stringify([1, 'x', ['y']])).toString('base64url');
    const wrong = [
      'x',
      forged,
      flipped,
      token.slice(0, -1),
      token.slice(4),
      `${token}A`,
      `${token}=`,
      ` ${token}`,
      '\uffff',
      'a\0',
      'x'.repeat(2049),
    ];
    for (const method of lists) {
      const { request, actor } = await exampleOf(method);
      const foreign = method.name === 'ListUsers' ? [] : [token];
      for (const pageToken of [...wrong, ...foreign]) {
        const ended = await rawGrpc(service, method, binaryOf(method, { ...request, pageToken }), actor);
        assert.deepEqual([ended.code, ended.reason], [3, 'INVALID_PAGE_TOKEN'], `${keyOf(method)}: ${pageToken}`);
      }
    }
    assert.ok((await users.listUsers({ pageSize: 1, pageToken: token })).users.length > 0, 'the token itself is fine');
  });

  it('is bound to the project it was given for', async () => {
    const [mine, theirs] = [await newWorld(service), await newWorld(service)];
    const { nextPageToken: pageToken } = await projects.listMembers({ projectId: mine.projectId, pageSize: 1 });
    const { members } = await projects.listMembers({ projectId: mine.projectId, pageSize: 5, pageToken });
    assert.equal(members.length, 2);
    await assert.rejects(projects.listMembers({ projectId: theirs.projectId, pageToken }), {
      reason: 'INVALID_PAGE_TOKEN',
    });
  });
});

describe('a thousand faults at once', () => {
  const CALLS: Readonly<Record<string, Fields>> = {
    'UserService/BatchGetUsers': { ids: listOf('no id', 1000) },
    'AgentExecutionService/BatchCreateExecutions': {
      projectId: 'none',
      executions: listOf({ agentType: '', parentExecutionId: 'none', status: 99, model: 'x'.repeat(101) }, 1000),
    },
    'ChangeService/WatchProjects': { cursors: listOf({ projectId: 'none', afterRevision: -1n }, 1000) },
  };
  for (const [key, request] of Object.entries(CALLS)) {
    it(`${key} names the first few, in trailers that a stock client reads`, async () => {
      for (const ended of [
        await rawGrpc(service, methodOf(key), binaryOf(methodOf(key), request)),
        await rawJson(service, methodOf(key), jsonOf(methodOf(key), request)),
      ]) {
        assert.deepEqual([ended.code, ended.reason], [3, 'INVALID_FIELD']);
        assert.ok(ended.fields.length > 1 && ended.fields.length <= 16);
      }
    });
  }
});
