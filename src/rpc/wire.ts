import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import type { FieldViolation } from '../refusal.ts';

const STRUCT = 'google.protobuf.Struct';
const VALUE = 'google.protobuf.Value';
const MAX_DEPTH = 100;

/** What to look for: text that is not UTF-8 explains why a message did not decode; the rest is looked for in those that did. */
type Search = 'fault' | 'value';

class Found extends Error {
  readonly violation: FieldViolation;

  constructor(field: string, description: string) {
    super(description);
    this.violation = { field, description };
  }
}

/** Finds the field that keeps a binary message from being decoded; null when the fault is in no field. */
export const findWireFault = (desc: DescMessage, bytes: Uint8Array): FieldViolation | null =>
  search(desc, bytes, 'fault');

/**
 * Finds a `google.protobuf.Value` without a kind in a binary message that decodes. protobuf-es holds a Struct as plain
 * JSON, where such a value has become an ordinary null.
 */
export const findKindlessValue = (desc: DescMessage, bytes: Uint8Array): FieldViolation | null =>
  search(desc, bytes, 'value');

const search = (desc: DescMessage, bytes: Uint8Array, what: Search): FieldViolation | null => {
  try {
    walk(desc, new BinaryReader(bytes), bytes.length, '', what, 0);
    return null;
  } catch (error) {
    return error instanceof Found ? error.violation : null;
  }
};

const structs = new Map<DescMessage, boolean>();

/** Whether a Struct stands anywhere in messages of this type. */
export const holdsStruct = (desc: DescMessage): boolean => {
  const known = structs.get(desc);
  if (known !== undefined) return known;
  if (desc.typeName === STRUCT) return true;
  // Stands before the fields are looked at, so that a type that holds itself ends.
  structs.set(desc, false);
  const holds = desc.fields.some((field) => field.message && holdsStruct(field.message));
  structs.set(desc, holds);
  return holds;
};

const walk = (desc: DescMessage, reader: BinaryReader, end: number, path: string, what: Search, depth: number) => {
  if (depth > MAX_DEPTH) throw new Found(path, 'is nested too deep');
  const counts = new Map<DescField, number>();
  let fields = 0;
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    const field = desc.fields.find((candidate) => candidate.number === number);
    fields += field ? 1 : 0;
    if (!field || wireType !== WireType.LengthDelimited || !concerns(field, what)) {
      reader.skip(wireType, number, MAX_DEPTH - depth);
      continue;
    }
    const index = counts.get(field) ?? 0;
    counts.set(field, index + 1);
    walkField(field, reader, pathOf(desc, field, path, index), what, depth);
  }
  if (what === 'value' && desc.typeName === VALUE && fields === 0) throw new Found(path, 'must have a kind');
};

const concerns = (field: DescField, what: Search): boolean =>
  field.message !== undefined
    ? what === 'fault' || insideStruct(field.parent) || holdsStruct(field.message)
    : what === 'fault' && (field.scalar === ScalarType.STRING || field.fieldKind === 'map');

const insideStruct = (desc: DescMessage): boolean => /^google\.protobuf\.(Struct|Value|ListValue)$/.test(desc.typeName);

// A Struct is named as a whole: its keys are content.
const pathOf = (desc: DescMessage, field: DescField, path: string, index: number): string => {
  if (insideStruct(desc)) return path;
  const name = field.fieldKind === 'list' ? `${field.name}[${index}]` : field.name;
  return path === '' ? name : `${path}.${name}`;
};

const walkField = (field: DescField, reader: BinaryReader, path: string, what: Search, depth: number) => {
  if (!field.message && field.fieldKind !== 'map') return checkUtf8(reader, path);
  const end = reader.uint32() + reader.pos;
  if (end > reader.len) throw new Found(path, 'ends before its length');
  if (field.fieldKind === 'map') walkEntry(field, reader, end, path, what, depth);
  else if (field.message) walk(field.message, reader, end, path, what, depth + 1);
};

const walkEntry = (
  field: DescField & { fieldKind: 'map' },
  reader: BinaryReader,
  end: number,
  path: string,
  what: Search,
  depth: number,
) => {
  let hasValue = false;
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    const isText = number === 1 ? field.mapKey === ScalarType.STRING : field.scalar === ScalarType.STRING;
    const nested = number === 2 && field.message;
    hasValue ||= number === 2;
    if (wireType === WireType.LengthDelimited && nested) {
      walk(nested, reader, reader.uint32() + reader.pos, path, what, depth + 1);
    } else if (wireType === WireType.LengthDelimited && isText) {
      checkUtf8(reader, path);
    } else {
      reader.skip(wireType, number, MAX_DEPTH - depth);
    }
  }
  if (what === 'value' && !hasValue && field.message?.typeName === VALUE) throw new Found(path, 'must have a kind');
};

const checkUtf8 = (reader: BinaryReader, path: string) => {
  try {
    reader.string(true);
  } catch (error) {
    throw new Found(path, error instanceof RangeError ? 'ends before its length' : 'must be valid UTF-8');
  }
};
