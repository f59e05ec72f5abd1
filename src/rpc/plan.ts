import { type DescMethod, fromBinary, type Message } from '@bufbuild/protobuf';
import { type FieldViolation, Refusal } from '../refusal.ts';
import { type Caller, compileAccess, compileCover, isMutation } from './access.ts';
import { compileEncode } from './encode.ts';
import type { AnyHandler, Implementation } from './handlers.ts';
import { compileAnswered, compileSubject, type Subject } from './subject.ts';
import { compileTextCheck } from './text.ts';
import { compileValidation } from './validate.ts';
import { findKindlessValue, findWireFault, holdsStruct } from './wire.ts';

/** What the pipeline knows of a method before the first call. */
export interface MethodPlan {
  readonly method: DescMethod;
  /** `package.Service/Method`, as in logs. */
  readonly name: string;
  readonly streaming: boolean;
  /** Whether it is a stream that goes on for as long as its client listens. */
  readonly endless: boolean;
  readonly mutation: boolean;
  readonly handler: AnyHandler;
  /** Throws SCOPE_REQUIRED. */
  readonly checkAccess: (caller: Caller, actor: string | null) => void;
  /** Throws SCOPE_REQUIRED or PROJECT_NOT_FOUND for what the caller's token does not cover. */
  readonly checkCover: (caller: Caller, projects: readonly string[]) => void;
  /** What a request is about, once `checkMessage` has let it pass. */
  readonly subjectOf: (request: Message) => Subject;
  /** A subject, completed by what the answer names. */
  readonly answeredSubject: (subject: Subject, answer: object) => Subject;
  /** Throws INVALID_FIELD or CONTENT_TOO_LARGE; puts UUIDs into lower case. */
  readonly checkMessage: (message: Message) => void;
  /** What a handler answers, in binary. */
  readonly encode: (answer: object) => Buffer;
  /** Throws INVALID_FIELD for what the decoded message no longer shows. */
  readonly checkWire: ((bytes: Uint8Array) => void) | null;
}

/** Compiles the plans of every method of these services; throws when a method has no handler or states no access. */
export const compilePlans = (implementations: readonly Implementation[]): MethodPlan[] =>
  implementations.flatMap(({ service, handlers }) =>
    service.methods.map((method) => compilePlan(method, handlers[method.localName])),
  );

const compilePlan = (method: DescMethod, handler: AnyHandler | undefined): MethodPlan => {
  const name = `${method.parent.typeName}/${method.name}`;
  if (!handler) throw new Error(`${name} has no handler`);
  if (method.methodKind !== 'unary' && method.methodKind !== 'server_streaming') {
    throw new Error(`${name}: a ${method.methodKind} method cannot be served over HTTP/1.1`);
  }
  const checkText = compileTextCheck(method.input);
  const validate = compileValidation(method.input);
  return {
    method,
    name,
    streaming: method.methodKind === 'server_streaming',
    // The contract calls these WatchProject, WatchHealth, and so on.
    endless: method.methodKind === 'server_streaming' && method.name.startsWith('Watch'),
    mutation: isMutation(method),
    handler,
    checkAccess: compileAccess(method),
    checkCover: compileCover(method),
    subjectOf: compileSubject(method),
    answeredSubject: compileAnswered(method),
    encode: compileEncode(method.output) as MethodPlan['encode'],
    checkMessage: (message) => {
      checkText(message);
      validate(message);
    },
    checkWire: holdsStruct(method.input) ? (bytes) => refuse(findKindlessValue(method.input, bytes)) : null,
  };
};

const refuse = (violation: FieldViolation | null) => {
  if (violation) throw invalid(`${violation.field}: ${violation.description}`, violation);
};

const invalid = (message: string, field: FieldViolation | null): Refusal =>
  new Refusal('INVALID_FIELD', message, { fields: field ? [field] : [] });

/** Decodes a request from its binary form; throws INVALID_FIELD, with the field's path where one is at fault. */
export const decode = (plan: MethodPlan, bytes: Uint8Array): Message => {
  let message: Message;
  try {
    message = fromBinary(plan.method.input, bytes);
  } catch (error) {
    const said = error instanceof Error ? error.message : 'not a message';
    throw undecodable(said, findWireFault(plan.method.input, bytes));
  }
  plan.checkWire?.(bytes);
  return message;
};

/**
 * The refusal of a request that a decoder of protobuf-es did not take.
 * @param message what the decoder said
 * @param fault the field that kept the request from being decoded; null when the fault is in none
 */
export const undecodable = (message: string, fault: FieldViolation | null): Refusal =>
  invalid(fault ? `${fault.field}: ${fault.description}` : `not a valid message: ${message}`, fault);
