/** Writes protobuf's wire format. https://protobuf.dev/programming-guides/encoding/ */
export interface Writer {
  tag(number: number, wire: number): Writer;
  int32(value: number): void;
  int64(value: bigint): void;
  double(value: number): void;
  string(value: string): void;
  bytes(value: Uint8Array): void;
  /** What `put` writes of a value, behind its length. */
  nested<T>(put: (writer: Writer, value: T) => void, value: T): void;
}

/** A writer that begins anew with each message. Not to be used while it writes one. */
interface MessageWriter {
  /** A message in a buffer of its own. */
  write<T>(put: (writer: Writer, value: T) => void, value: T): Buffer;
  /** Its length in bytes. */
  measure<T>(put: (writer: Writer, value: T) => void, value: T): number;
}

const KEPT_BYTES = 256 * 1024;
/** A text that is shorter is copied faster character by character than by a call of the encoder. */
const SHORT = 64;
const MAX_VARINT_BYTES = 10;
const LAST_INT32 = 2 ** 31 - 1;

/** Messages are written into one buffer, which grows with the largest one and is not kept at that size. */
export const createWriter = (): MessageWriter => {
  let buffer = Buffer.allocUnsafeSlow(KEPT_BYTES);
  let offset = 0;

  const reserve = (bytes: number): void => {
    if (offset + bytes <= buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(2 * buffer.length, offset + bytes));
    buffer.copy(larger, 0, 0, offset);
    buffer = larger;
  };

  /** Of a whole number that is not negative. */
  const varint = (value: number): void => {
    let rest = value;
    while (rest > LAST_INT32) {
      buffer[offset++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    while (rest > 127) {
      buffer[offset++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    buffer[offset++] = rest;
  };

  const large = (value: bigint): void => {
    let rest = BigInt.asUintN(64, value);
    while (rest > 127n) {
      buffer[offset++] = Number(rest & 127n) | 128;
      rest >>= 7n;
    }
    buffer[offset++] = Number(rest);
  };

  /** Whether a text is of ASCII alone, and written. */
  const ascii = (value: string): boolean => {
    const start = offset;
    buffer[offset++] = value.length;
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code > 127) {
        offset = start;
        return false;
      }
      buffer[offset++] = code;
    }
    return true;
  };

  /** Moves what was written since a place back by the length of its length, and writes that. */
  const closeNested = (start: number): void => {
    const length = offset - start;
    if (length < 128) {
      buffer[start - 1] = length;
      return;
    }
    reserve(MAX_VARINT_BYTES);
    const end = offset;
    offset = start - 1;
    const more = (32 - Math.clz32(length) + 6) / 7 - 1;
    buffer.copyWithin(start + Math.floor(more), start, end);
    varint(length);
    offset += length;
  };

  const writer: Writer = {
    tag: (number, wire) => {
      reserve(2 * MAX_VARINT_BYTES);
      varint((number << 3) | wire);
      return writer;
    },
    int32: (value) => {
      if (value < 0) large(BigInt(value));
      else varint(value);
    },
    int64: (value) => {
      if (value < 0n || value > Number.MAX_SAFE_INTEGER) large(value);
      else varint(Number(value));
    },
    double: (value) => {
      offset = buffer.writeDoubleLE(value, offset);
    },
    string: (value) => {
      if (value.length < SHORT) {
        reserve(SHORT + 1);
        if (ascii(value)) return;
      }
      const length = Buffer.byteLength(value);
      reserve(length + MAX_VARINT_BYTES);
      varint(length);
      offset += buffer.write(value, offset, 'utf8');
    },
    bytes: (value) => {
      reserve(value.length + MAX_VARINT_BYTES);
      varint(value.length);
      buffer.set(value, offset);
      offset += value.length;
    },
    nested: (put, value) => {
      // One byte is enough for most lengths.
      reserve(1);
      offset += 1;
      const start = offset;
      put(writer, value);
      closeNested(start);
    },
  };

  const begin = (): void => {
    offset = 0;
    if (buffer.length > KEPT_BYTES) buffer = Buffer.allocUnsafeSlow(KEPT_BYTES);
  };

  return {
    write: (put, value) => {
      begin();
      put(writer, value);
      const written = buffer.subarray(0, offset);
      // A buffer that has grown is not written into again.
      return buffer.length > KEPT_BYTES ? written : Buffer.from(written);
    },
    measure: (put, value) => {
      begin();
      put(writer, value);
      return offset;
    },
  };
};
