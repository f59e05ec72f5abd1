import { type DescMessage, fromJson, type JsonValue } from '@bufbuild/protobuf';
import type { FieldViolation } from '../refusal.ts';

/** Finds the field that keeps a JSON message from being decoded; null when the fault is in no field. */
export const findJsonFault = (desc: DescMessage, json: JsonValue | undefined): FieldViolation | null => {
  const fault = json === undefined ? null : faultOf(desc, json);
  const violation = fault && find(desc, json as JsonValue, '', fault);
  return violation?.field ? violation : null;
};

/** What the decoder says of a mistake, and the name of the field where it is about one. */
interface Fault {
  readonly leaf: string | undefined;
  readonly description: string;
}

const DECODER = /^cannot decode (?:field \S+\.(\w+)|message \S+|\S+) from JSON:? (.*)$/s;

/** What is wrong with a JSON message, or something in it; null when it decodes. */
const faultOf = (desc: DescMessage, json: JsonValue): Fault | null => {
  try {
    fromJson(desc, json);
    return null;
  } catch (error) {
    const { message } = error as Error;
    const [, leaf, description = message] = DECODER.exec(message) ?? [];
    return { leaf, description };
  }
};

/** The innermost place of a fault that a message is known to have. */
const find = (desc: DescMessage, json: JsonValue, path: string, fault: Fault): FieldViolation => {
  // Messages that JSON writes in another form are named as a whole.
  if (!isObject(json) || desc.typeName.startsWith('google.protobuf.')) return at(path, fault);
  for (const [key, value] of Object.entries(json)) {
    const inner = faultOf(desc, { [key]: value });
    if (inner === null) continue;
    const field = desc.fields.find(({ name, jsonName }) => key === name || key === jsonName);
    const here = under(path, field?.name ?? key);
    if (!field) return { field: here, description: 'is not a field of this message' };
    if (field.fieldKind !== 'list' || !Array.isArray(value)) {
      return field.fieldKind === 'message' ? find(field.message, value, here, inner) : at(here, inner);
    }
    const index = firstBad(value, (items) => faultOf(desc, { [key]: items }) !== null);
    const item = value[index] ?? null;
    const itemPath = `${here}[${index}]`;
    const itemFault = faultOf(desc, { [key]: [item] }) ?? inner;
    return field.message ? find(field.message, item, itemPath, itemFault) : at(itemPath, itemFault);
  }
  // No field is wrong by itself, such as one that is there under both of its names.
  return at(fault.leaf === undefined ? path : under(path, fault.leaf), fault);
};

const at = (field: string, { description }: Fault): FieldViolation => ({ field, description });

/** The place of the first bad item of a list known to have one, by halves: in the time of decoding it twice. */
const firstBad = (items: JsonValue[], isBad: (items: JsonValue[]) => boolean): number => {
  if (items.length <= 1) return 0;
  const middle = items.length >> 1;
  const half = items.slice(0, middle);
  return isBad(half) ? firstBad(half, isBad) : middle + firstBad(items.slice(middle), isBad);
};

const under = (path: string, name: string): string => (path === '' ? name : `${path}.${name}`);

const isObject = (json: JsonValue): json is Exclude<JsonValue & object, JsonValue[]> =>
  typeof json === 'object' && json !== null && !Array.isArray(json);
