import { createHash } from 'node:crypto';
import { fromJson, type JsonObject, type JsonValue, type Message, toJson } from '@bufbuild/protobuf';
import type { Client } from '@grpc/grpc-js';
import { type CallOptions, clientOf } from '../support/client.ts';
import { methodOf } from '../support/methods.ts';

/** A call and what a release answered to it, in the JSON of protobuf. */
export interface Recorded extends Asked {
  /** Of a stream: its messages. Long texts are their hashes. */
  readonly answer: JsonValue;
}

/** A call to make. */
export interface Asked {
  /** `Service/Method`. */
  readonly call: string;
  /** A user's id; absent: the system acts for itself. */
  readonly actor?: string;
  readonly request: JsonObject;
}

/** How long a text may be to stay readable in a recording. */
const LONGEST = 120;

type AnyCall = (request: Message, options: CallOptions) => Promise<Message> | AsyncIterable<Message>;

/** Makes a call and records it, every field with its value. @throws CallError when it is refused */
export const record = async (channel: Client, asked: Asked): Promise<Recorded> => {
  const method = methodOf(asked.call);
  const client = clientOf(method.parent, channel) as unknown as Record<string, AnyCall>;
  const request = fromJson(method.input, asked.request);
  const answer = (client[method.localName] as AnyCall)(request, { actor: asked.actor });
  const read = (message: Message) => hashed(toJson(method.output, message, { alwaysEmitImplicit: true }));
  if (!(Symbol.asyncIterator in answer)) return { ...asked, answer: read(await answer) };
  const messages: JsonValue[] = [];
  for await (const message of answer) messages.push(read(message));
  return { ...asked, answer: messages };
};

const isObject = (value: JsonValue | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const mapObject = (object: JsonObject, change: (value: JsonValue, name: string) => JsonValue): JsonObject =>
  Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value, name)]));

/** The value with each long text replaced by its hash. */
const hashed = (value: JsonValue): JsonValue => {
  if (Array.isArray(value)) return value.map(hashed);
  if (isObject(value)) return mapObject(value, hashed);
  if (typeof value !== 'string' || value.length <= LONGEST) return value;
  return `sha256 ${createHash('sha256').update(value).digest('hex')}, ${value.length} characters`;
};

/** An answer without the fields that the recorded one does not know: a later release may have more. */
export const knownFields = (answer: JsonValue, recorded: JsonValue | undefined): JsonValue => {
  if (Array.isArray(answer) && Array.isArray(recorded))
    return answer.map((each, at) => knownFields(each, recorded[at]));
  if (!isObject(answer) || !isObject(recorded)) return answer;
  const known = Object.fromEntries(Object.entries(answer).filter(([name]) => Object.hasOwn(recorded, name)));
  return mapObject(known, (value, name) => knownFields(value, recorded[name]));
};
