import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { ConfigError } from '../src/config.ts';
import { type Identity, payloadOf, profileOf } from '../src/sealing/identity.ts';
import { keyIdOf, loadRing, parseRing } from '../src/sealing/ring.ts';

const HEX = 'a5'.repeat(32);
const BASE64 = Buffer.alloc(32, 7).toString('base64');
const ring = parseRing(`1:${HEX}`, 'TEST');
const both = parseRing(`2:${BASE64},1:${HEX}`, 'TEST');

describe('the text of a key ring', () => {
  const right: readonly (readonly [string, string, readonly number[]])[] = [
    ['one key in hexadecimal', `1:${HEX}`, [1]],
    ['capital letters', `1:${HEX.toUpperCase()}`, [1]],
    [
      'base64, with and without its padding',
      `7:${BASE64}, 65535:${Buffer.alloc(32, 8).toString('base64').replace('=', '')}`,
      [7, 65535],
    ],
    ['lines, empty ones and remarks', `# the new one\n2:${BASE64}\r\n\n  # 3:x, 4:y\n 1 : ${HEX} \n`, [2, 1]],
    ['a comma at the end', `1:${HEX},`, [1]],
  ];
  for (const [what, text, ids] of right) {
    it(`may be ${what}`, () => assert.deepEqual(parseRing(text, 'TEST').ids, ids));
  }

  const wrong: readonly (readonly [string, string, RegExp])[] = [
    ['empty', ' \n# nothing', /TEST: expected at least one key$/],
    ['a key alone', HEX, /entry 1: expected id:key/],
    ['an id of 0, which says "not sealed"', `0:${HEX}`, /entry 1: expected an id from 1 to 65535/],
    ['an id too large', `65536:${HEX}`, /expected an id from 1 to 65535/],
    ['an id with a sign', `-1:${HEX}`, /expected id:key/],
    ['an id twice', `1:${HEX},1:${BASE64}`, /entry 2: the id 1 stands there twice/],
    ['a key twice', `1:${HEX}\n2:${HEX}`, /entry 2: the keys 1 and 2 are the same/],
    ['31 bytes', `1:${HEX.slice(2)}`, /entry 1: the key 1 is not 32 bytes/],
    ['33 bytes', `1:${HEX}a5`, /is not 32 bytes/],
    ['a strange letter', `1:${HEX.slice(1)}g`, /is not 32 bytes/],
    ['base64 of 31 bytes', `1:${Buffer.alloc(31, 7).toString('base64')}`, /is not 32 bytes/],
    ['no key', '1:', /is not 32 bytes/],
  ];
  for (const [what, text, expected] of wrong) {
    it(`is refused for ${what}, without repeating it`, () => {
      assert.throws(
        () => parseRing(text, 'TEST'),
        (error) => {
          assert.ok(error instanceof ConfigError);
          assert.match(error.message, expected);
          for (const secret of text.match(/[A-Za-z0-9+/]{20,}/g) ?? []) assert.ok(!error.message.includes(secret));
          return true;
        },
      );
    });
  }

  it('is told of with all its mistakes at once', () => {
    assert.throws(() => parseRing(`0:${HEX},x,1:y`, 'TEST'), /3 mistakes:\n.*entry 1: .*\n.*entry 2: .*\n.*entry 3: /);
  });

  it('comes from a file, from the environment, or from beside embedded data', () => {
    const folder = mkdtempSync(join(tmpdir(), 'jeex-keys-'));
    after(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'keys');
    writeFileSync(file, `# keys\n3:${HEX}\n`);
    assert.deepEqual(loadRing({ file }, null).ids, [3]);
    assert.deepEqual(loadRing({ text: `4:${HEX}` }, `5:${HEX}`).ids, [4]);
    assert.deepEqual(loadRing(null, `5:${HEX}`).ids, [5]);
    assert.throws(
      () => loadRing({ file: join(folder, 'none') }, null),
      /ENCRYPTION_KEYS_FILE: cannot be read \(ENOENT\)/,
    );
    assert.throws(() => loadRing(null, null), /ENCRYPTION_KEYS: expected/);
  });
});

describe('an envelope', () => {
  const [project, run] = [randomUUID(), randomUUID()];
  const place = payloadOf(project, run, 'input');
  const plain = Buffer.from('something to keep');

  it('is key id, nonce, ciphertext and tag; never the same twice', () => {
    const envelope = ring.seal(plain, place);
    assert.equal(envelope.length, 2 + 12 + plain.length + 16);
    assert.equal(keyIdOf(envelope), 1);
    assert.ok(!envelope.includes(plain));
    assert.ok(!ring.seal(plain, place).subarray(2, 14).equals(envelope.subarray(2, 14)));
    assert.deepEqual(ring.open(envelope, place), plain);
    assert.deepEqual(ring.open(ring.seal(new Uint8Array(), place), place), Buffer.alloc(0));
  });

  it('is sealed under the first key of the ring and opened by any', () => {
    assert.equal(keyIdOf(both.seal(plain, place)), 2);
    assert.deepEqual(both.open(ring.seal(plain, place), place), plain);
    assert.throws(
      () => ring.open(both.seal(plain, place), place),
      new Error(
        `execution_payloads.input of ${run} in project ${project} is sealed under key 2, which the key ring does not have`,
      ),
    );
  });

  it('needs of the row that it was sealed for the last 8 bytes of the id alone', () => {
    const envelope = ring.seal(plain, profileOf(run));
    assert.deepEqual(ring.open(envelope, profileOf(`00000000-0000-0000${run.slice(18)}`)), plain);
  });

  const elsewhere: readonly (readonly [string, Identity])[] = [
    ['another kind', payloadOf(project, run, 'output')],
    ['another project', payloadOf(randomUUID(), run, 'input')],
    ['another run', payloadOf(project, randomUUID(), 'input')],
    ['another table', profileOf(run)],
  ];
  for (const [what, identity] of elsewhere) {
    it(`does not open as ${what}`, () => {
      assert.throws(() => ring.open(ring.seal(plain, place), identity), /does not authenticate under key 1/);
    });
  }

  it('does not open with any bit changed, any byte missing, or one more', () => {
    const envelope = ring.seal(plain, place);
    for (let index = 0; index < envelope.length; index += 1) {
      const changed = Buffer.from(envelope);
      changed[index] = (changed[index] ?? 0) ^ 1;
      assert.throws(() => ring.open(changed, place), `byte ${index}`);
      assert.throws(() => ring.open(envelope.subarray(0, index), place), `${index} bytes`);
    }
    assert.throws(() => ring.open(Buffer.concat([envelope, Buffer.alloc(1)]), place));
    assert.throws(() => ring.open(envelope.subarray(0, 1), place), /is cut short: it holds less than a key id/);
    assert.throws(() => ring.open(envelope.subarray(0, 29), place), /is cut short: it has 29 bytes/);
    assert.throws(() => ring.open(Buffer.from([0, 0, 123, 125]), place), /is not sealed$/);
  });
});
