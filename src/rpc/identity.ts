import { createHash } from 'node:crypto';
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

const sha256 = (...parts: (string | Uint8Array)[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/**
 * What makes a mutation idempotent; null when it was sent without a `request_id`.
 * The hash tells one request from another; the key seals the stored reply. Both come from one digest of the request, which
 * is stored nowhere, so that the hash does not give the key away and a large request is read once.
 */
export const requestIdentity = (method: string, desc: DescMessage, message: Message): RequestIdentity | null => {
  const id = (message as unknown as { requestId?: string }).requestId;
  if (!id) return null;
  const digest = sha256(canonicalBytes(desc, message, ['request_id']));
  return { id: id.toLowerCase(), hash: sha256(`request\0${method}\0`, digest), key: sha256('reply\0', digest) };
};
