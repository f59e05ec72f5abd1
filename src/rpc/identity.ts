import { createHash, createHmac } from 'node:crypto';
import { create, type DescField, type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import type { RequestIdentity } from './call.ts';

type Fields = Record<string, unknown>;

const byKey = ([a]: [string, unknown], [b]: [string, unknown]): number => (a < b ? -1 : a > b ? 1 : 0);

/** The same JSON value with the keys of every object in one order. */
export const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  // Built from entries, because assigning would lose a key named `__proto__`.
  return Object.fromEntries(
    Object.entries(value)
      .sort(byKey)
      .map(([key, item]) => [key, sorted(item)]),
  );
};

const isStruct = (field: DescField): boolean => field.message?.typeName === 'google.protobuf.Struct';

const canonicalField = (field: DescField, value: unknown): unknown => {
  if (value === undefined || value === null) return value;
  if (isStruct(field)) return sorted(value);
  if (field.fieldKind === 'map') return Object.fromEntries(Object.entries(value as Fields).sort(byKey));
  const nested = field.message;
  if (!nested) return value;
  return Array.isArray(value) ? value.map((item) => copy(nested, item)) : copy(nested, value as Message);
};

const copy = (desc: DescMessage, message: Message, omit: readonly string[] = []): Message => {
  const result = create(desc);
  const from = message as unknown as Fields;
  const to = result as unknown as Fields;
  for (const field of desc.fields) {
    const { localName } = field;
    if (field.oneof || omit.includes(field.name) || !Object.hasOwn(from, localName)) continue;
    to[localName] = canonicalField(field, from[localName]);
  }
  for (const { localName, fields } of desc.oneofs) {
    const member = from[localName] as { case?: string; value?: unknown };
    const field = fields.find((candidate) => candidate.localName === member.case);
    if (field) to[localName] = { case: member.case, value: canonicalField(field, member.value) };
  }
  return result;
};

/**
 * The binary form of a message that is the same for every way of writing the same message: without unknown fields, its maps
 * and Structs in key order. `omit` names top-level fields, as in the proto, that are left out.
 */
export const canonicalBytes = (desc: DescMessage, message: Message, omit: readonly string[] = []): Uint8Array =>
  toBinary(desc, copy(desc, message, omit), { writeUnknownFields: false });

/** What makes a mutation idempotent; null when it was sent without a `request_id`. */
export type IdentifyRequest = (method: string, desc: DescMessage, message: Message) => RequestIdentity | null;

/**
 * The hash tells one request from another; the key seals the stored reply. Both are made from one digest of the request, so
 * that a large one is read once, and with a secret that the database does not have: who reads its tables can neither try
 * out requests nor open a reply.
 * @param secret shared by all replicas, for the life of the database
 */
export const requestIdentifier = (secret: Buffer): IdentifyRequest => {
  const mac = (...parts: (string | Uint8Array)[]): Buffer => {
    const hmac = createHmac('sha256', secret);
    for (const part of parts) hmac.update(part);
    return hmac.digest();
  };
  return (method, desc, message) => {
    const given = (message as unknown as { requestId?: string }).requestId;
    if (!given) return null;
    const id = given.toLowerCase();
    const digest = createHash('sha256')
      .update(canonicalBytes(desc, message, ['request_id']))
      .digest();
    return { id, hash: mac(`request\0${method}\0`, digest), key: mac(`reply\0${method}\0${id}\0`, digest) };
  };
};
