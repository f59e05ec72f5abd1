import type { DescMethod } from '@bufbuild/protobuf';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { Metadata } from '@grpc/grpc-js';
import { post, type Refused, refusedConnect, refusedGrpc } from './echo.ts';

/** An object with this many levels. */
export function nested(depth: number): object {
  return depth === 1 ? {} : { a: nested(depth - 1) };
}

/** A google.protobuf.Struct whose one value is a list of a list of a list …, in binary. */
export function listBomb(depth: number): Uint8Array {
  let value = Buffer.from([0x08, 0x00]);
  const wrap = (tag: number, bytes: Buffer) =>
    Buffer.concat([new BinaryWriter().uint32(tag).uint32(bytes.length).finish(), bytes]);
  for (let i = 0; i < depth; i += 1) value = wrap(0x32, wrap(0x0a, value));
  return wrap(0x0a, Buffer.concat([Buffer.from([0x0a, 0x01, 0x61]), wrap(0x12, value)]));
}

/** Sends bytes to a unary method over gRPC-Web. */
export async function grpcWeb(http: string, method: DescMethod, bytes: Uint8Array) {
  const body = Buffer.concat([Buffer.from([0, 0, 0, 0, 0]), bytes]);
  body.writeUInt32BE(bytes.length, 1);
  const response = await post(http, method, body, { 'content-type': 'application/grpc-web+proto' });
  const answer = Buffer.from(await response.arrayBuffer());
  const start = answer[0] === 0x80 ? 0 : 5 + answer.readUInt32BE(1);
  const text = answer.subarray(start + 5).toString();
  const trailer = Object.fromEntries(
    text
      .trim()
      .split('\r\n')
      .map((line) => line.split(/:\s*/, 2)),
  );
  if (trailer['grpc-status'] === '0') return { trailer, refused: null };
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(trailer['grpc-status-details-bin'], 'base64'));
  const headers = new Metadata();
  headers.set('x-correlation-id', response.headers.get('x-correlation-id') ?? '');
  const error = { code: Number(trailer['grpc-status']), details: trailer['grpc-message'], metadata };
  return { trailer, refused: refusedGrpc({ error: Object.assign(new Error(), error), headers }) };
}

/** The error in the end of a Connect stream. */
export async function streamError(http: string, method: DescMethod, json: string): Promise<Refused> {
  const body = Buffer.concat([Buffer.from([0, 0, 0, 0, json.length]), Buffer.from(json)]);
  const response = await post(http, method, body, {
    'content-type': 'application/connect+json',
  });
  const answer = Buffer.from(await response.arrayBuffer());
  const { error } = JSON.parse(answer.subarray(5).toString());
  return refusedConnect(error, response.headers);
}
