import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import type { Fields } from './methods.ts';

export type Kind = 'text' | 'uuid' | 'number' | 'double' | 'enum' | 'struct' | 'time' | 'mask';

/** A field somewhere in a request. */
export interface Place {
  readonly kind: Kind;
  /** As an error names it: `entries[0].content`. */
  readonly path: string;
  /** The keys to it in a message as a plain object. */
  readonly keys: readonly (string | number)[];
}

const SPECIAL: Readonly<Record<string, Kind>> = {
  'google.protobuf.Struct': 'struct',
  'google.protobuf.Timestamp': 'time',
  'google.protobuf.Duration': 'time',
  'google.protobuf.FieldMask': 'mask',
};
const UUID_NAME = /(^|_)ids?$/;

const kindOf = (field: DescField): Kind | null => {
  if (field.message) return SPECIAL[field.message.typeName] ?? null;
  if (field.enum) return 'enum';
  switch (field.scalar) {
    case ScalarType.STRING:
      return UUID_NAME.test(field.name) ? 'uuid' : 'text';
    case ScalarType.DOUBLE:
      return 'double';
    case ScalarType.INT32:
    case ScalarType.INT64:
      return 'number';
    default:
      return null;
  }
};

/** Every field of a request type that a value can be wrong in, the first element standing for a list. */
export const placesOf = (desc: DescMessage, path = '', keys: Place['keys'] = []): Place[] =>
  desc.fields.flatMap((field) => {
    const list = field.fieldKind === 'list';
    const at = `${path}${field.name}${list ? '[0]' : ''}`;
    const to = [...keys, field.localName, ...(list ? [0] : [])];
    const kind = kindOf(field);
    if (kind !== null) return [{ kind, path: at, keys: to }];
    return field.message ? placesOf(field.message, `${at}.`, to) : [];
  });

/** The request with another value in one place; what stands above the place is made where it is missing. */
export const withValue = (request: Fields, [key, ...rest]: Place['keys'], value: unknown): Fields => {
  const held = request[key as string];
  if (rest.length === 0) return { ...request, [key as string]: value };
  const inner = withValue((held ?? {}) as Fields, rest, value);
  if (typeof rest[0] !== 'number') return { ...request, [key as string]: inner };
  const list = Array.isArray(held) ? [...held] : [];
  list[0] = rest.length === 1 ? value : withValue((list[0] ?? {}) as Fields, rest.slice(1), value);
  return { ...request, [key as string]: list };
};
