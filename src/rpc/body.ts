import type { IncomingMessage } from 'node:http';
import { gunzipSync } from 'node:zlib';
import { MAX_MESSAGE_BYTES } from './limits.ts';

/** A request's body, which Connect reads and decodes by itself, kept for what its decoder does not tell. */
export interface Body {
  /** Passes the chunks on, and keeps those of a binary message. */
  record(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
  /** The binary message as it was sent, unwrapped and uncompressed; null when it was JSON. Call it once the body was read. */
  message(): Uint8Array | null;
}

const ENVELOPE_BYTES = 5;
const COMPRESSED = 1;

/** Keeps the body of one request. */
export const recordBody = (request: IncomingMessage): Body => {
  const type = /^application\/(?:(proto)|(?:connect\+proto|grpc-web(?:\+proto)?))\s*(?:;|$)/.exec(
    request.headers['content-type'] ?? '',
  );
  const chunks: Uint8Array[] = [];
  return {
    record: (source) => (type ? keep(source, chunks) : source),
    message: () => {
      if (request.method === 'GET') return queryMessage(request);
      if (!type) return null;
      const bytes = Buffer.concat(chunks);
      return type[1] ? inflate(bytes, request.headers['content-encoding'] === 'gzip') : unwrap(bytes);
    },
  };
};

async function* keep(source: AsyncIterable<Uint8Array>, chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    chunks.push(chunk);
    yield chunk;
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

const queryMessage = ({ url }: IncomingMessage): Uint8Array | null => {
  const query = new URL(url ?? '', 'http://host').searchParams;
  if (query.get('encoding') !== 'proto') return null;
  const bytes = Buffer.from(query.get('message') ?? '', query.get('base64') === '1' ? 'base64url' : 'utf8');
  return inflate(bytes, query.get('compression') === 'gzip');
};
