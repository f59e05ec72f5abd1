import type { IncomingMessage } from 'node:http';
import { gunzipSync } from 'node:zlib';
import type { JsonValue } from '@bufbuild/protobuf';
import { MAX_MESSAGE_BYTES } from './limits.ts';

/** A request's body, which Connect reads and decodes by itself, kept for what its decoder does not tell. */
export interface Body {
  /** Passes the chunks on, and keeps them. */
  record(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
  /** Gives the body up with what this rejects with. */
  endWith(ended: Promise<never>): void;
  /** The binary message as it was sent, unwrapped and uncompressed; null when it was JSON. Call it once the body was read. */
  message(): Uint8Array | null;
  /** The JSON message as it was sent, parsed; undefined when it was binary, or no JSON. Call it once the body was read. */
  json(): JsonValue | undefined;
}

const ENVELOPE_BYTES = 5;
const COMPRESSED = 1;

/** The content types of a message: plain, or in an envelope. */
const TYPES = {
  proto: /^application\/(?:(proto)|(connect\+proto|grpc-web(?:\+proto)?))\s*(?:;|$)/,
  json: /^application\/(?:(json)|(connect\+json|grpc-web\+json))\s*(?:;|$)/,
};

/** Keeps the body of one request. */
export const recordBody = (request: IncomingMessage): Body => {
  const type = request.headers['content-type'] ?? '';
  const chunks: Uint8Array[] = [];
  let end: Promise<never> | null = null;
  const content = (encoding: 'proto' | 'json'): Uint8Array | null => {
    if (request.method === 'GET') return queryMessage(request, encoding);
    const [, plain, wrapped] = TYPES[encoding].exec(type) ?? [];
    if (plain !== undefined) return inflate(Buffer.concat(chunks), request.headers['content-encoding'] === 'gzip');
    return wrapped === undefined ? null : unwrap(Buffer.concat(chunks));
  };
  return {
    record: (source) => keep(source, chunks, () => end),
    endWith: (ended) => {
      end = ended;
    },
    message: () => content('proto'),
    json: () => {
      try {
        return JSON.parse(Buffer.from(content('json') ?? []).toString()) as JsonValue;
      } catch {
        return undefined;
      }
    },
  };
};

async function* keep(
  source: AsyncIterable<Uint8Array>,
  chunks: Uint8Array[],
  ended: () => Promise<never> | null,
): AsyncGenerator<Uint8Array> {
  // Not a loop over the source, which would close the connection before it is answered.
  const iterator = source[Symbol.asyncIterator]();
  for (;;) {
    const next = iterator.next();
    const end = ended();
    const { done, value } = await (end ? Promise.race([next, end]) : next);
    if (done) return;
    chunks.push(value);
    yield value;
  }
}

// The first envelope: these methods take one message.
const unwrap = (bytes: Buffer): Uint8Array | null => {
  if (bytes.length < ENVELOPE_BYTES) return null;
  const content = bytes.subarray(ENVELOPE_BYTES, ENVELOPE_BYTES + bytes.readUInt32BE(1));
  return inflate(content, (bytes.readUInt8(0) & COMPRESSED) !== 0);
};

const inflate = (bytes: Buffer, compressed: boolean): Uint8Array =>
  compressed && bytes.length > 0 ? gunzipSync(bytes, { maxOutputLength: MAX_MESSAGE_BYTES }) : bytes;

const queryMessage = ({ url }: IncomingMessage, encoding: string): Uint8Array | null => {
  const query = new URL(url ?? '', 'http://host').searchParams;
  if (query.get('encoding') !== encoding) return null;
  const bytes = Buffer.from(query.get('message') ?? '', query.get('base64') === '1' ? 'base64url' : 'utf8');
  return inflate(bytes, query.get('compression') === 'gzip');
};
