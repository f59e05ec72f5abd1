import { create, type DescMessage, type Message } from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator, type Violation } from '@bufbuild/protovalidate';
import { type FieldViolation, type Reason, Refusal } from '../refusal.ts';
import { PAGE_TOKEN } from './page.ts';

const patterns = new Map<string, RegExp>();

/** The patterns are the protos' own, none of which goes back over a text; RE2, made for those of strangers, takes ten times as long. */
const regexMatch = (pattern: string, text: string): boolean => {
  let compiled = patterns.get(pattern);
  if (!compiled) {
    compiled = new RegExp(pattern, 'u');
    patterns.set(pattern, compiled);
  }
  return compiled.test(text);
};

const validator = createValidator({ regexMatch });

// Rules of size, whose violation says that the content is too large rather than wrong.
const SIZE_RULES = new Set(['string.max_bytes', 'bytes.max_len']);

/**
 * Compiles the rules that a request type states in its proto.
 * The returned function throws INVALID_FIELD, CONTENT_TOO_LARGE or INVALID_PAGE_TOKEN with the path of every field that breaks one.
 */
export const compileValidation = (desc: DescMessage): ((message: Message) => void) => {
  // The first validation of a type compiles its rules: done here, so that no call pays for it and a broken rule stops the start.
  const warm = validator.validate(desc, create(desc));
  if (warm.kind === 'error') throw warm.error;
  return (message) => {
    const result = validator.validate(desc, message);
    if (result.kind === 'valid') return;
    if (result.kind === 'error') throw result.error;
    throw refusalOf(result.violations);
  };
};

const refusalOf = (violations: readonly Violation[]): Refusal => {
  const fields = violations.map(fieldViolation);
  const [first] = fields;
  return new Refusal(reasonOf(violations, fields), `${first?.field}: ${first?.description}`, { fields });
};

const reasonOf = (violations: readonly Violation[], fields: readonly FieldViolation[]): Reason => {
  if (violations.every(({ ruleId }) => SIZE_RULES.has(ruleId))) return 'CONTENT_TOO_LARGE';
  return fields.every(({ field }) => field === PAGE_TOKEN) ? 'INVALID_PAGE_TOKEN' : 'INVALID_FIELD';
};

const fieldViolation = ({ field, message, ruleId }: Violation): FieldViolation => ({
  field: pathToString(field),
  description: message || ruleId,
});
