import { type DescField, type DescMessage, getOption, ScalarType } from '@bufbuild/protobuf';
import { field as rulesOf } from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { type Reason, Refusal } from '../refusal.ts';
import { PAGE_TOKEN } from './page.ts';

/** The deepest a Struct nests, its outermost object being the first level. */
export const MAX_STRUCT_DEPTH = 20;
/** The largest a Struct is, in bytes of its JSON text in UTF-8. */
export const MAX_STRUCT_BYTES = 16 * 1024;

/** What is wrong with a value, and where below the message it was found in. */
interface Fault {
  readonly path: string;
  readonly description: string;
  readonly reason: Reason;
}

type Message = Record<string, unknown>;
type Check = (message: Message) => Fault | null;
type ValueCheck = (value: unknown) => Fault | null;
type Normalise = (value: string) => string;

const here = (description: string, reason: Reason = 'INVALID_FIELD'): Fault => ({ path: '', description, reason });
const under = (name: string, fault: Fault): Fault => ({
  ...fault,
  path: fault.path === '' ? name : `${name}.${fault.path}`,
});

const checkString: ValueCheck = (value) => {
  const text = value as string;
  if (text.includes('\0')) return here('must not contain NUL');
  return text.isWellFormed() ? null : here('must be valid Unicode, without lone surrogates');
};

const checkNumber: ValueCheck = (value) => (Number.isFinite(value) ? null : here('must be a finite number'));

/** Checks a Struct, which protobuf-es holds as plain JSON: its text, its numbers, its depth and its size. */
const checkStruct: ValueCheck = (value) => {
  const fault = checkJson(value, 1);
  if (fault) return fault;
  const bytes = Buffer.byteLength(JSON.stringify(value)) + exponents(value);
  if (bytes <= MAX_STRUCT_BYTES) return null;
  return here(`must be at most ${MAX_STRUCT_BYTES} bytes as JSON, is ${bytes}`, 'CONTENT_TOO_LARGE');
};

// PostgreSQL keeps a JSON number without an exponent: 1e308 takes 309 characters there, in every list that reads it.
const exponents = (value: unknown): number => {
  if (typeof value === 'number') return Number(/e[+-](\d+)$/.exec(String(value))?.[1] ?? 0);
  if (typeof value !== 'object' || value === null) return 0;
  return Object.values(value).reduce<number>((sum, item) => sum + exponents(item), 0);
};

// Bounded, because it stops at the first level that is too deep.
const checkJson = (value: unknown, depth: number): Fault | null => {
  if (typeof value === 'string') return checkString(value);
  if (typeof value === 'number') return checkNumber(value);
  if (typeof value !== 'object' || value === null) return null;
  if (depth > MAX_STRUCT_DEPTH) return here(`must be at most ${MAX_STRUCT_DEPTH} levels deep`);
  if (Array.isArray(value)) return firstFault(value, (item) => checkJson(item, depth + 1));
  return firstFault(Object.entries(value), ([key, item]) => checkString(key) ?? checkJson(item, depth + 1));
};

const firstFault = <T>(items: readonly T[], check: (item: T) => Fault | null): Fault | null => {
  for (const item of items) {
    const fault = check(item);
    if (fault) return fault;
  }
  return null;
};

// The ranges of these two types, stated in their .proto files; beyond them neither JSON nor PostgreSQL can hold the value.
const rangeChecks: Readonly<Record<string, Check>> = {
  'google.protobuf.Timestamp': ({ seconds, nanos }) =>
    (seconds as bigint) >= -62_135_596_800n && (seconds as bigint) <= 253_402_300_799n && inNanos(nanos as number, 0)
      ? null
      : here('must be between 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999999Z'),
  'google.protobuf.Duration': ({ seconds, nanos }) => {
    const whole = seconds as bigint;
    const part = nanos as number;
    const oneSign = whole === 0n || part === 0 || whole > 0n === part > 0;
    const inRange = whole >= -315_576_000_000n && whole <= 315_576_000_000n && inNanos(part, -999_999_999);
    return oneSign && inRange ? null : here('must be a duration of at most 10 000 years');
  },
};

const inNanos = (nanos: number, least: number): boolean => nanos >= least && nanos <= 999_999_999;

const isUuid = (field: DescField): boolean => {
  const rules = getOption(field, rulesOf);
  const type = rules.type.case === 'repeated' ? rules.type.value.items?.type : rules.type;
  return type?.case === 'string' && type.value.wellKnown.case === 'uuid';
};

const compiled = new Map<DescMessage, Check | null>();

/** The check of a message type; null when nothing in it can be wrong. Compiled once per type. */
const compile = (desc: DescMessage): Check | null => {
  const known = compiled.get(desc);
  if (known !== undefined) return known;
  const range = rangeChecks[desc.typeName];
  if (range) {
    compiled.set(desc, range);
    return range;
  }
  const checks: Check[] = [];
  // Stands before the fields are compiled, so that a type that holds itself finds it.
  compiled.set(desc, (message) => firstFault(checks, (check) => check(message)));
  for (const field of desc.fields) {
    const check = compileField(field);
    if (check) checks.push(check);
  }
  if (checks.length === 0) compiled.set(desc, null);
  return compiled.get(desc) ?? null;
};

const compileField = (field: DescField): Check | null => {
  const check = compileValue(field);
  const normalise = isUuid(field) ? (value: string) => value.toLowerCase() : null;
  if (field.fieldKind === 'list') return check && checkList(field, check, normalise);
  if (field.fieldKind === 'map') return checkMap(field, check);
  if (!check) return null;
  return field.oneof ? checkOneof(field, field.oneof.localName, check) : checkSingle(field, check, normalise);
};

const compileValue = (field: DescField): ValueCheck | null => {
  if (field.scalar === ScalarType.STRING) return checkString;
  if (field.scalar === ScalarType.DOUBLE || field.scalar === ScalarType.FLOAT) return checkNumber;
  if (!field.message) return null;
  const { typeName } = field.message;
  if (typeName === 'google.protobuf.Struct') return checkStruct;
  // Held in other shapes than their messages: nothing in the contract uses them, and nothing may slip through unchecked.
  if (/^google\.protobuf\.(Value|ListValue|Any|\w+Value)$/.test(typeName)) {
    throw new Error(`${field.parent.typeName}.${field.name}: a ${typeName} has no text check`);
  }
  return compile(field.message) as ValueCheck | null;
};

const checkSingle = (field: DescField, check: ValueCheck, normalise: Normalise | null): Check => {
  const { localName, name } = field;
  return (message) => {
    const value = message[localName];
    if (value === undefined) return null;
    const fault = check(value);
    if (fault) return under(name, fault);
    if (normalise) message[localName] = normalise(value as string);
    return null;
  };
};

const checkOneof =
  ({ localName, name }: DescField, oneof: string, check: ValueCheck): Check =>
  (message) => {
    const member = message[oneof] as { case?: string; value?: unknown };
    const fault = member.case === localName ? check(member.value) : null;
    return fault && under(name, fault);
  };

const checkList =
  ({ localName, name }: DescField, check: ValueCheck, normalise: Normalise | null): Check =>
  (message) => {
    const list = message[localName] as unknown[];
    for (let i = 0; i < list.length; i += 1) {
      const fault = check(list[i]);
      if (fault) return under(`${name}[${i}]`, fault);
      if (normalise) list[i] = normalise(list[i] as string);
    }
    return null;
  };

const checkMap =
  ({ localName, name }: DescField, check: ValueCheck | null): Check =>
  (message) => {
    const entries = Object.entries(message[localName] as Record<string, unknown>);
    const fault = firstFault(entries, ([key, value]) => checkString(key) ?? check?.(value) ?? null);
    return fault && under(name, fault);
  };

/**
 * Compiles the check that every request passes before its handler: text without NUL or lone surrogates, finite numbers,
 * times in range, small Structs. UUIDs are put into lower case on the way.
 * The returned function throws INVALID_FIELD, CONTENT_TOO_LARGE for a large Struct, or INVALID_PAGE_TOKEN, with the path of the first field that is wrong.
 */
export const compileTextCheck = (desc: DescMessage): ((message: object) => void) => {
  const check = compile(desc);
  if (!check) return () => {};
  return (message) => {
    const fault = check(message as Message);
    if (fault) throw refusalOf(fault);
  };
};

const refusalOf = ({ path, description, reason }: Fault): Refusal =>
  new Refusal(path === PAGE_TOKEN ? 'INVALID_PAGE_TOKEN' : reason, `${path}: ${description}`, {
    fields: [{ field: path, description }],
  });
