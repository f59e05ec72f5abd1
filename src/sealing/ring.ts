import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Config, ConfigError } from '../config.ts';
import { associatedData, describeIdentity, type Identity } from './identity.ts';

const ALGORITHM = 'aes-256-gcm';
const KEY_BYTES = 32;
const KEY_ID_BYTES = 2;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = KEY_ID_BYTES + NONCE_BYTES;
const MAX_KEY_ID = 65535;
/** The key id of release 0.1.0, whose envelopes hold plain bytes. */
export const NOT_SEALED = 0;

/** Keys by their ids: the first one seals, each opens what it has sealed. */
export interface KeyRing {
  /** In the order they were given. */
  readonly ids: readonly [number, ...number[]];
  /** An envelope: the key's id (2 bytes, big-endian), a random nonce (12), the ciphertext, the tag (16). */
  seal(plain: Uint8Array, identity: Identity): Buffer;
  /** The plain bytes of an envelope. @throws Error saying what is wrong with it, and where it is; never what it holds */
  open(envelope: Uint8Array, identity: Identity): Buffer;
}

/** The id of the key that an envelope is sealed under. @throws Error when it is too short to be one */
export function keyIdOf(envelope: Uint8Array): number {
  const [high, low] = envelope;
  if (high === undefined || low === undefined) throw new Error('is cut short: it holds less than a key id');
  return high * 256 + low;
}

/**
 * Reads the text of a ring: `id:key` entries separated by commas or line breaks; empty lines and lines that begin with # are
 * passed over. An id is 1 to 65535, a key 32 bytes in hexadecimal or base64.
 * @param source what the text came from, for messages
 * @throws ConfigError with every mistake; it never repeats a key
 */
export function parseRing(text: string, source: string): KeyRing {
  const lines = text.split(/\r?\n/).filter((line) => !line.trimStart().startsWith('#'));
  const entries = lines.flatMap((line) => line.split(',')).flatMap((entry) => entry.trim() || []);
  const keys = new Map<number, KeyObject>();
  const problems: string[] = [];
  for (const [index, entry] of entries.entries()) {
    const problem = addKey(keys, entry);
    if (problem !== null) problems.push(`${source}: entry ${index + 1}: ${problem}`);
  }
  if (entries.length === 0) problems.push(`${source}: expected at least one key`);
  if (problems.length > 0) throw new ConfigError(problems);
  return ringOf(keys);
}

/**
 * The ring to work with.
 * @param kept the text beside embedded data, for when nothing is configured; null without embedded data
 * @throws ConfigError when there is none or it cannot be read, and as `parseRing` does
 */
export function loadRing(configured: Config['encryptionKeys'], kept: string | null): KeyRing {
  if (configured === null && kept === null) {
    throw new ConfigError(['ENCRYPTION_KEYS: expected, because DATABASE_URL is set; or ENCRYPTION_KEYS_FILE']);
  }
  if (configured === null) return parseRing(kept ?? '', '"encryption" in secrets.json');
  if ('text' in configured) return parseRing(configured.text, 'ENCRYPTION_KEYS');
  return parseRing(readKeys(configured.file), 'ENCRYPTION_KEYS_FILE');
}

function readKeys(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError([`ENCRYPTION_KEYS_FILE: cannot be read (${(error as NodeJS.ErrnoException).code})`]);
  }
}

/** Adds an entry's key; or answers what is wrong with it. */
function addKey(keys: Map<number, KeyObject>, entry: string): string | null {
  const [, digits = '', encoded = ''] = /^(\d{1,9})\s*:\s*(.*)$/.exec(entry) ?? [];
  const id = Number(digits);
  if (digits === '') return 'expected id:key, such as 1:what `openssl rand -hex 32` prints';
  if (id < 1 || id > MAX_KEY_ID) return `expected an id from 1 to ${MAX_KEY_ID}`;
  if (keys.has(id)) return `the id ${id} stands there twice`;
  const bytes = decodeKey(encoded);
  if (bytes === null)
    return `the key ${id} is not ${KEY_BYTES} bytes in hexadecimal (64 digits) or base64 (44 characters)`;
  const key = createSecretKey(bytes);
  for (const [other, known] of keys) if (known.equals(key)) return `the keys ${other} and ${id} are the same`;
  keys.set(id, key);
  return null;
}

function decodeKey(encoded: string): Buffer | null {
  if (/^[0-9a-f]{64}$/i.test(encoded)) return Buffer.from(encoded, 'hex');
  return /^[A-Za-z0-9+/]{43}=?$/.test(encoded) ? Buffer.from(encoded, 'base64') : null;
}

function ringOf(keys: ReadonlyMap<number, KeyObject>): KeyRing {
  const [first] = keys;
  if (first === undefined) throw new Error('a key ring has at least one key');
  const [keyId, key] = first;
  return {
    ids: [keyId, ...[...keys.keys()].slice(1)],
    seal: (plain, identity) => {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
      cipher.setAAD(associatedData(identity));
      const head = Buffer.alloc(KEY_ID_BYTES);
      head.writeUInt16BE(keyId);
      return Buffer.concat([head, nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    open: (envelope, identity) => {
      try {
        return openWith(keys, envelope, identity);
      } catch (error) {
        throw new Error(`${describeIdentity(identity)} ${(error as Error).message}`);
      }
    },
  };
}

function openWith(keys: ReadonlyMap<number, KeyObject>, envelope: Uint8Array, identity: Identity): Buffer {
  const keyId = keyIdOf(envelope);
  if (keyId === NOT_SEALED) throw new Error('is not sealed');
  const key = keys.get(keyId);
  if (key === undefined) throw new Error(`is sealed under key ${keyId}, which the key ring does not have`);
  if (envelope.length < HEAD_BYTES + TAG_BYTES) throw new Error(`is cut short: it has ${envelope.length} bytes`);
  const end = envelope.length - TAG_BYTES;
  const nonce = envelope.subarray(KEY_ID_BYTES, HEAD_BYTES);
  const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(associatedData(identity)).setAuthTag(envelope.subarray(end));
  const plain = decipher.update(envelope.subarray(HEAD_BYTES, end));
  try {
    return Buffer.concat([plain, decipher.final()]);
  } catch {
    throw new Error(`does not authenticate under key ${keyId}: it was altered, cut short, or belongs to another row`);
  }
}
