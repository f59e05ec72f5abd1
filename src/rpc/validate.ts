import { create, type DescMessage, type Message } from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator, type Violation } from '@bufbuild/protovalidate';
import { type FieldViolation, Refusal } from '../refusal.ts';

const validator = createValidator();

// Rules of size, whose violation says that the content is too large rather than wrong.
const SIZE_RULES = new Set(['string.max_bytes', 'bytes.max_len']);

/**
 * Compiles the rules that a request type states in its proto.
 * The returned function throws INVALID_FIELD or CONTENT_TOO_LARGE with the path of every field that breaks one.
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
  const reason = violations.every(({ ruleId }) => SIZE_RULES.has(ruleId)) ? 'CONTENT_TOO_LARGE' : 'INVALID_FIELD';
  const [first] = fields;
  return new Refusal(reason, `${first?.field}: ${first?.description}`, { fields });
};

const fieldViolation = ({ field, message, ruleId }: Violation): FieldViolation => ({
  field: pathToString(field),
  description: message || ruleId,
});
