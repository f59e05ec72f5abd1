import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  create,
  type DescField,
  type DescMessage,
  type DescService,
  getOption,
  isFieldSet,
  ScalarType,
} from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { createValidator } from '@bufbuild/protovalidate';
import {
  EnumRulesSchema,
  type FieldRules,
  field as fieldRules,
  StringRulesSchema,
} from '@bufbuild/protovalidate/gen/buf/validate/validate_pb.js';
import { Access, access } from '../src/gen/jeex/persistence/v1/access_pb.js';
import { AppendVersionRequestSchema } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ErrorReasonSchema } from '../src/gen/jeex/persistence/v1/error_reason_pb.js';
import { CreateExportRequestSchema } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { CreateProjectRequestSchema } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { GetUserRequestSchema } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { REASONS } from '../src/refusal.ts';
import { SERVICES } from '../src/service.ts';

const METHODS = SERVICES.flatMap((service) => service.methods);
const READS = METHODS.filter((method) => method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS);
const MUTATIONS = METHODS.filter((method) => !READS.includes(method));
const ID = '019234aa-0000-7000-8000-000000000000';

const path = (method: { parent: DescService; name: string }): string => `${method.parent.typeName}/${method.name}`;

test('every RPC says who may call it', () => {
  for (const method of METHODS) {
    assert.notEqual(getOption(method, access), Access.UNSPECIFIED, path(method));
  }
});

test('every mutation ends in an optional request id, and no read has one', () => {
  for (const method of MUTATIONS) {
    const last = method.input.fields.toSorted((a, b) => a.number - b.number).at(-1);
    assert.equal(last?.name, 'request_id', path(method));
    assert.equal(last.number, method.input.fields.length, path(method));
  }
  for (const method of READS) {
    assert.equal(method.input.field.requestId, undefined, path(method));
  }
});

test('the reasons of the code are those of the contract, in its order', () => {
  const names = ErrorReasonSchema.values.map((value) => value.name.replace(/^ERROR_REASON_/, ''));
  assert.deepEqual(names, ['UNSPECIFIED', ...REASONS]);
});

test('the service config lets stock clients retry exactly the reads', () => {
  const url = new URL('../proto/service_config.json', import.meta.url);
  const config = JSON.parse(readFileSync(url, 'utf8')) as { methodConfig: { name: Record<string, string>[] }[] };
  const named = config.methodConfig.flatMap((entry) => entry.name.map((name) => `${name.service}/${name.method}`));
  assert.deepEqual(named.toSorted(), READS.map(path).toSorted());
});

const isBoundedString = (rules: FieldRules | undefined): boolean => {
  if (rules?.type.case !== 'string') return false;
  const string = rules.type.value;
  const sized = ['maxLen', 'maxBytes', 'len', 'lenBytes'] as const;
  if (sized.some((name) => isFieldSet(string, StringRulesSchema.field[name]))) return true;
  if (string.wellKnown.case === 'uuid') return string.wellKnown.value;
  return string.pattern !== '' && !/[*+]|,\}/.test(string.pattern);
};

const isBoundedValue = (kind: 'string' | 'bytes' | 'enum', rules: FieldRules | undefined): boolean => {
  if (kind === 'string') return isBoundedString(rules);
  if (kind === 'bytes') return rules?.type.case === 'bytes' && rules.type.value.maxLen > 0n;
  return rules?.type.case === 'enum' && isFieldSet(rules.type.value, EnumRulesSchema.field.definedOnly);
};

const kindOf = (desc: DescField): 'string' | 'bytes' | 'enum' | undefined => {
  if (desc.enum !== undefined) return 'enum';
  if (desc.scalar === ScalarType.STRING) return 'string';
  return desc.scalar === ScalarType.BYTES ? 'bytes' : undefined;
};

const isBounded = (desc: DescField): boolean => {
  const rules = getOption(desc, fieldRules);
  const kind = kindOf(desc);
  if (desc.fieldKind === 'map') return false;
  if (desc.fieldKind !== 'list') return kind === undefined || isBoundedValue(kind, rules);
  if (rules.type.case !== 'repeated' || rules.type.value.maxItems === 0n) return false;
  return kind === undefined || isBoundedValue(kind, rules.type.value.items);
};

/** The messages a request is made of, but for Google's own, whose sizes are checked by code. */
const reachable = (message: DescMessage, seen = new Set<DescMessage>()): Set<DescMessage> => {
  if (seen.has(message) || message.typeName.startsWith('google.protobuf.')) return seen;
  seen.add(message);
  for (const desc of message.fields) {
    if (desc.message !== undefined) reachable(desc.message, seen);
  }
  return seen;
};

test('every string, bytes, enum and list a caller can send is bounded', () => {
  const messages = new Set(METHODS.flatMap((method) => [...reachable(method.input)]));
  const open = [...messages].flatMap((message) => message.fields.filter((desc) => !isBounded(desc)));
  assert.deepEqual(
    open.map((desc) => `${desc.parent.typeName}.${desc.name}`),
    [],
  );
});

const validator = createValidator();
const violations = <S extends DescMessage>(schema: S, init: Parameters<typeof create<S>>[1]): string[] => {
  const result = validator.validate(schema, create(schema, init));
  if (result.kind === 'error') throw result.error;
  return (result.violations ?? []).map((violation) =>
    violation.field.map((part) => ('name' in part ? part.name : '')).join('.'),
  );
};

test('the validator enforces the rules of the proto', () => {
  const project = { projectId: ID, documentType: 'technical.v1' };
  const day = { seconds: 86_400n };
  const cases: [string[], string[]][] = [
    [violations(GetUserRequestSchema, { id: ID }), []],
    [violations(GetUserRequestSchema, { id: 'x' }), ['id']],
    [violations(GetUserRequestSchema, {}), ['id']],
    [violations(AppendVersionRequestSchema, { ...project, expectedVersion: 0, readabilityScore: 0 }), []],
    [violations(AppendVersionRequestSchema, { ...project, expectedVersion: -1 }), ['expected_version']],
    [violations(AppendVersionRequestSchema, { ...project, documentType: 'Technical' }), ['document_type']],
    [violations(AppendVersionRequestSchema, { ...project, documentType: 'technical\n' }), ['document_type']],
    [violations(AppendVersionRequestSchema, { ...project, requestId: 'x' }), ['request_id']],
    [violations(AppendVersionRequestSchema, { ...project, grammarScore: 100.1 }), ['grammar_score']],
    [violations(AppendVersionRequestSchema, { ...project, content: 'ä'.repeat(1_572_864) }), []],
    [violations(AppendVersionRequestSchema, { ...project, content: 'ä'.repeat(1_572_865) }), ['content']],
    [violations(CreateProjectRequestSchema, { name: '😀'.repeat(255), language: 'pt-BR' }), []],
    [violations(CreateProjectRequestSchema, { name: '😀'.repeat(256), language: 'pt_BR' }), ['name', 'language']],
    [violations(CreateExportRequestSchema, { projectId: ID }), []],
    [violations(CreateExportRequestSchema, { projectId: ID, ttl: { seconds: 30n * day.seconds } }), []],
    [violations(CreateExportRequestSchema, { projectId: ID, ttl: { seconds: 30n * day.seconds, nanos: 1 } }), ['ttl']],
    [violations(CreateExportRequestSchema, { projectId: ID, ttl: {} }), ['ttl']],
  ];
  for (const [index, [found, expected]] of cases.entries()) {
    assert.deepEqual(found, expected, `case ${index}`);
  }
});
