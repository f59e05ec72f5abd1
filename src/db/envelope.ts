/** The key id that says "not sealed": the plain bytes follow it. */
const NOT_SEALED = 0;
const KEY_ID_BYTES = 2;

/**
 * Wraps the bytes of a sealed column (profile, input, output): the key id as two big-endian bytes, then what that key
 * makes of them. Key id 0 means that they are not sealed.
 */
export function seal(plain: Uint8Array): Buffer {
  const envelope = Buffer.allocUnsafe(KEY_ID_BYTES + plain.length);
  envelope.writeUInt16BE(NOT_SEALED);
  envelope.set(plain, KEY_ID_BYTES);
  return envelope;
}

/**
 * The plain bytes of an envelope.
 * @throws Error when the envelope is cut short, or its key is not known here
 */
export function open(envelope: Uint8Array): Buffer {
  const bytes = Buffer.from(envelope.buffer, envelope.byteOffset, envelope.byteLength);
  if (bytes.length < KEY_ID_BYTES) throw new Error('a sealed column holds less than a key id');
  const keyId = bytes.readUInt16BE();
  if (keyId !== NOT_SEALED) throw new Error(`a sealed column names the unknown key ${keyId}`);
  return bytes.subarray(KEY_ID_BYTES);
}
