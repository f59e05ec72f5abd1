import { create, type DescMethod, toBinary, toJsonString } from '@bufbuild/protobuf';
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { pathOf, post, refusedConnect, refusedGrpc, refusedHttp, sendGrpc } from './echo.ts';
import type { Fields } from './methods.ts';
import type { TestService } from './service.ts';

/** How a call ended, in the same form for both doors and for streams: code 0 is an answer. */
export interface Ended {
  readonly code: number;
  readonly reason: string | undefined;
  readonly fields: readonly string[];
}

const FINE: Ended = { code: 0, reason: undefined, fields: [] };
const ENVELOPE = 5;
const END_OF_STREAM = 2;

type Target = Pick<TestService, 'channel' | 'http'>;

const actorHeader = (actor: string | undefined): Record<string, string> =>
  actor === undefined ? {} : { 'x-actor-id': actor };

/** Sends bytes to any method over gRPC; a stream has ended well with its first message. */
export const rawGrpc = async (
  { channel }: Target,
  method: DescMethod,
  bytes: Uint8Array,
  actor?: string,
): Promise<Ended> => {
  if (method.methodKind === 'unary') {
    const answered = await sendGrpc(channel, method, bytes, actorHeader(actor));
    return answered.error ? refusedGrpc(answered) : FINE;
  }
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(actorHeader(actor))) metadata.set(name, value);
  const same = (buffer: Buffer): Buffer => buffer;
  const call = channel.makeServerStreamRequest(pathOf(method), same, same, Buffer.from(bytes), metadata);
  return await new Promise((resolve) => {
    call.once('error', (error: ServiceError) => resolve(refusedGrpc({ error, headers: new Metadata() })));
    call.once('end', () => resolve(FINE));
    call.once('data', () => {
      resolve(FINE);
      call.on('error', () => {});
      call.cancel();
    });
  });
};

/** Sends JSON text to any method over HTTP; a stream has ended well with its first message. */
export const rawJson = async (
  { http }: Target,
  method: DescMethod,
  json: string | Uint8Array<ArrayBuffer>,
  actor?: string,
): Promise<Ended> => {
  if (method.methodKind === 'unary') {
    const response = await post(`http://${http}`, method, json, actorHeader(actor));
    if (response.ok) await response.arrayBuffer();
    return response.ok ? FINE : await refusedHttp(response);
  }
  const text = typeof json === 'string' ? Buffer.from(json) : json;
  const body = Buffer.concat([Buffer.alloc(ENVELOPE), text]);
  body.writeUInt32BE(text.length, 1);
  const type = { 'content-type': 'application/connect+json' };
  const response = await post(`http://${http}`, method, body, { ...type, ...actorHeader(actor) });
  const reader = response.body?.getReader();
  let seen = Buffer.alloc(0);
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (value) seen = Buffer.concat([seen, value]);
    if (seen.length >= ENVELOPE && seen.length >= ENVELOPE + seen.readUInt32BE(1)) break;
    if (done) throw new Error('a stream ended within a message');
  }
  await reader?.cancel();
  if (((seen[0] ?? 0) & END_OF_STREAM) === 0) return FINE;
  const { error } = JSON.parse(seen.subarray(ENVELOPE, ENVELOPE + seen.readUInt32BE(1)).toString());
  return error ? refusedConnect(error, response.headers) : FINE;
};

export const binaryOf = (method: DescMethod, request: Fields): Buffer =>
  Buffer.from(toBinary(method.input, create(method.input, request)));

export const jsonOf = (method: DescMethod, request: Fields): string =>
  toJsonString(method.input, create(method.input, request));
