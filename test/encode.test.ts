import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  create,
  type DescField,
  type DescMessage,
  type MessageInitShape,
  ScalarType,
  toBinary,
} from '@bufbuild/protobuf';
import { compileEncode, encodedLength } from '../src/rpc/encode.ts';
import { SERVICES } from '../src/service.ts';

/** Numbers from 0 to below 1 that are the same in each run (https://en.wikipedia.org/wiki/Linear_congruential_generator). */
const numbersFrom = (seed: number) => {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
};

const TEXTS = ['', 'a', 'idea', 'é', '🙂', 'x'.repeat(63), 'x'.repeat(64), `${'x'.repeat(62)}é`, 'ü'.repeat(100)];
const LONG = ['x'.repeat(127), 'x'.repeat(128), 'y'.repeat(16_384), '🙂'.repeat(70_000)];
const VALUES: Readonly<Partial<Record<ScalarType, readonly unknown[]>>> = {
  [ScalarType.STRING]: [...TEXTS, ...LONG],
  [ScalarType.BYTES]: [new Uint8Array(), Buffer.from([0, 255]), Buffer.alloc(20_000, 7)],
  [ScalarType.BOOL]: [true, false],
  [ScalarType.DOUBLE]: [0, -0, 1.5, -1e300, Number.MAX_VALUE, 5e-324],
  [ScalarType.INT32]: [0, 1, 127, 128, 300, 2 ** 31 - 1, -1, -(2 ** 31)],
  [ScalarType.INT64]: [0n, 1n, 127n, 128n, 2n ** 31n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, -1n, -(2n ** 63n)],
};
const JSON_VALUES = [
  null,
  true,
  false,
  0,
  -1.5,
  '',
  'ü',
  [],
  [1, ['x', null]],
  {},
  { a: { b: [{}] } },
  'z'.repeat(200),
];

const make = (seed: number) => {
  const next = numbersFrom(seed);
  const pick = <T>(values: readonly T[]): T => values[Math.floor(next() * values.length)] as T;
  const many = <T>(one: () => T): T[] => Array.from({ length: Math.floor(next() * 4) }, one);

  const valueFor = (field: DescField, depth: number): unknown => {
    switch (field.fieldKind) {
      case 'message':
        return messageOf(field.message, depth + 1);
      case 'enum':
        return pick(field.enum.values).number;
      case 'list': {
        const { listKind, scalar } = field;
        return listKind === 'message'
          ? many(() => messageOf(field.message, depth + 1))
          : many(() => pick(VALUES[scalar as ScalarType] ?? []));
      }
      case 'map':
        return Object.fromEntries(many(() => [pick(TEXTS), pick(VALUES[field.scalar as ScalarType] ?? [])]));
      default:
        return pick(VALUES[field.scalar] ?? []);
    }
  };

  const messageOf = (desc: DescMessage, depth = 0): object => {
    if (desc.typeName === 'google.protobuf.Struct') {
      return Object.fromEntries(many(() => [pick(['k', 'ü', '__proto__x']), pick(JSON_VALUES)]));
    }
    const init: Record<string, unknown> = {};
    for (const member of desc.members) {
      if (next() < 0.25 || depth > 4) continue;
      if (member.kind === 'oneof') {
        const chosen = pick(member.fields);
        init[member.localName] = { case: chosen.localName, value: valueFor(chosen, depth) };
      } else {
        init[member.localName] = valueFor(member, depth);
      }
    }
    return init;
  };
  return messageOf;
};

describe('an answer', () => {
  const answers = SERVICES.flatMap((service) => service.methods.map(({ output }) => output));
  for (const desc of answers) {
    it(`is encoded as protobuf-es encodes it: ${desc.name}`, () => {
      const encode = compileEncode(desc);
      for (let seed = 1; seed <= 15; seed++) {
        const init = make(seed)(desc) as MessageInitShape<DescMessage>;
        const expected = Buffer.from(toBinary(desc, create(desc, init)));
        assert.ok(encode(init).equals(expected), `seed ${seed}`);
        assert.equal(encodedLength(desc, init), expected.length);
      }
    });
  }

  it('is a buffer of its own, and a failure leaves nothing behind', () => {
    const [desc] = answers;
    assert.ok(desc);
    const encode = compileEncode(desc);
    const [field] = desc.fields;
    assert.ok(field?.message);
    const named = (name: string) => ({ [field.localName]: { id: name } }) as MessageInitShape<DescMessage>;
    const first = encode(named('first'));
    assert.throws(() => encode({ [field.localName]: { id: 'lost', name: 7n } } as MessageInitShape<DescMessage>));
    const second = encode(named('second'));
    assert.deepEqual(
      [first, second],
      [encode(named('first')), Buffer.from(toBinary(desc, create(desc, named('second'))))],
    );
  });
});
