import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { anyPack, DurationSchema } from '@bufbuild/protobuf/wkt';
import type { ServiceError } from '@grpc/grpc-js';
import {
  BadRequestSchema,
  type ErrorInfo,
  ErrorInfoSchema,
  RetryInfoSchema,
} from '../gen/google/rpc/error_details_pb.js';
import { StatusSchema } from '../gen/google/rpc/status_pb.js';
import { type FieldViolation, type Outcome, type Reason, Refusal } from '../refusal.ts';

/** The status codes of gRPC, which Connect shares. */
export const Code = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type CodeName = keyof typeof Code;

export const codeNameOf = (code: number): CodeName => {
  const names = Object.keys(Code) as CodeName[];
  return names.find((name) => Code[name] === code) ?? 'UNKNOWN';
};

/** The one table of what a reason is on the wire. */
export const CODES: Readonly<Record<Reason, CodeName>> = {
  INVALID_FIELD: 'INVALID_ARGUMENT',
  CONTENT_TOO_LARGE: 'INVALID_ARGUMENT',
  INVALID_PAGE_TOKEN: 'INVALID_ARGUMENT',
  REQUEST_ID_REUSED: 'INVALID_ARGUMENT',
  LANGUAGE_IMMUTABLE: 'INVALID_ARGUMENT',
  USER_NOT_FOUND: 'NOT_FOUND',
  PROJECT_NOT_FOUND: 'NOT_FOUND',
  MEMBER_NOT_FOUND: 'NOT_FOUND',
  DOCUMENT_NOT_FOUND: 'NOT_FOUND',
  VERSION_NOT_FOUND: 'NOT_FOUND',
  EXECUTION_NOT_FOUND: 'NOT_FOUND',
  EXPORT_NOT_FOUND: 'NOT_FOUND',
  EMAIL_TAKEN: 'ALREADY_EXISTS',
  ETAG_MISMATCH: 'ABORTED',
  VERSION_CONFLICT: 'ABORTED',
  ILLEGAL_TRANSITION: 'FAILED_PRECONDITION',
  LAST_OWNER: 'FAILED_PRECONDITION',
  PROJECT_DELETED: 'FAILED_PRECONDITION',
  LEASE_LOST: 'FAILED_PRECONDITION',
  EXPORT_EXPIRED: 'FAILED_PRECONDITION',
  EXPORT_NOT_READY: 'FAILED_PRECONDITION',
  QUOTA_EXCEEDED: 'FAILED_PRECONDITION',
  REVISION_COMPACTED: 'OUT_OF_RANGE',
  UNAUTHENTICATED: 'UNAUTHENTICATED',
  ROLE_REQUIRED: 'PERMISSION_DENIED',
  SCOPE_REQUIRED: 'PERMISSION_DENIED',
  ACTOR_UNKNOWN: 'PERMISSION_DENIED',
  OVERLOADED: 'RESOURCE_EXHAUSTED',
  CONTENTION: 'UNAVAILABLE',
  DATABASE_UNAVAILABLE: 'UNAVAILABLE',
  SHUTTING_DOWN: 'UNAVAILABLE',
  DEADLINE: 'DEADLINE_EXCEEDED',
  INTERNAL: 'INTERNAL',
};

/** How long, in milliseconds and on average, a client waits before it repeats a call refused for one of these reasons. */
const RETRY_AFTER_MS: Readonly<Partial<Record<Reason, number>>> = {
  OVERLOADED: 1000,
  CONTENTION: 50,
  DATABASE_UNAVAILABLE: 1000,
  SHUTTING_DOWN: 250,
};

const DOMAIN = 'persistence.jeex';

// An error travels in HTTP/2 trailers, which stock clients read only up to 8 KiB in all.
const MAX_MESSAGE = 600;
const MAX_FIELDS = 16;
const MAX_FIELD_TEXT = 120;

/** A message of a known type, as both doors attach it to an error. */
export interface Detail {
  readonly desc: DescMessage;
  readonly value: MessageInitShape<DescMessage>;
}

/** A failed call, ready for either door. */
export class Failure extends Error {
  readonly code: CodeName;
  /** Null for what has no reason in the contract: a call whose client has gone. */
  readonly reason: Reason | null;
  readonly details: readonly Detail[];
  /** Milliseconds for the trailer `grpc-retry-pushback-ms`; null when repeating the call as it is does not help. */
  readonly pushbackMs: number | null;

  constructor(init: Pick<Failure, 'code' | 'reason' | 'details' | 'pushbackMs' | 'message' | 'cause'>) {
    super(init.message, { cause: init.cause });
    this.name = 'Failure';
    this.code = init.code;
    this.reason = init.reason;
    this.details = init.details;
    this.pushbackMs = init.pushbackMs;
  }
}

/** Why a call's signal aborts when its client has gone: nobody reads the answer. */
export class ClientGone extends Error {
  constructor() {
    super('the client has gone');
    this.name = 'ClientGone';
  }
}

/** Where a call stood when it failed. */
export interface Standing {
  readonly mutation: boolean;
  /** Whether the handler had been called: before that, nothing took effect. */
  readonly started: boolean;
}

/** Turns what a call failed with into what its client is told; what is not a `Refusal` becomes INTERNAL, without its message. */
export const toFailure = (error: unknown, standing: Standing): Failure => {
  if (error instanceof Failure) return error;
  if (error instanceof ClientGone) return bareFailure('CANCELLED', error.message);
  if (error instanceof Refusal) return fromRefusal(error, standing.mutation ? error.outcome : null, error.cause);
  const internal = new Refusal('INTERNAL', 'internal error; the correlation id finds it in the log');
  return fromRefusal(internal, standing.mutation ? (standing.started ? 'unknown' : 'not_applied') : null, error);
};

/** A failure that has its code alone: what a transport itself refuses. */
export const bareFailure = (code: CodeName, message: string): Failure =>
  new Failure({ code, reason: null, details: [], pushbackMs: null, message, cause: undefined });

const fromRefusal = (refusal: Refusal, outcome: Outcome | null, cause: unknown): Failure => {
  const { reason } = refusal;
  const metadata = outcome === null ? { ...refusal.metadata } : { ...refusal.metadata, outcome };
  const details: Detail[] = [detail(ErrorInfoSchema, { domain: DOMAIN, reason, metadata })];
  if (refusal.fields.length > 0) details.push(badRequest(refusal.fields));
  const pushbackMs = retryAfter(reason);
  if (pushbackMs !== null) details.push(detail(RetryInfoSchema, { retryDelay: duration(pushbackMs) }));
  const message = cut(refusal.message, MAX_MESSAGE);
  return new Failure({ code: CODES[reason], reason, details, pushbackMs, message, cause });
};

/** Between half and one and a half times the reason's time, so that who was refused together does not come back together. */
const retryAfter = (reason: Reason): number | null => {
  const average = RETRY_AFTER_MS[reason];
  return average === undefined ? null : Math.round(average * (0.5 + Math.random()));
};

const detail = <D extends DescMessage>(desc: D, value: MessageInitShape<D>): Detail => ({ desc, value });

const badRequest = (fields: readonly FieldViolation[]): Detail =>
  detail(BadRequestSchema, {
    fieldViolations: fields.slice(0, MAX_FIELDS).map(({ field, description }) => ({
      field: cut(field, MAX_FIELD_TEXT),
      description: cut(description, MAX_FIELD_TEXT),
    })),
  });

const duration = (ms: number) =>
  create(DurationSchema, { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 });

const cut = (text: string, length: number): string => {
  const wellFormed = text.toWellFormed();
  return wellFormed.length <= length ? wellFormed : `${wellFormed.slice(0, length - 1).toWellFormed()}…`;
};

/** The `google.rpc.Status` of a failure in binary, as gRPC carries it in `grpc-status-details-bin`. */
export const statusBytes = (failure: Failure): Uint8Array =>
  toBinary(
    StatusSchema,
    create(StatusSchema, {
      code: Code[failure.code],
      message: failure.message,
      details: failure.details.map(({ desc, value }) => anyPack(desc, create(desc, value))),
    }),
  );

/** What a refusal says for machines, as a client has it; undefined when the service did not answer. */
export const readErrorInfo = ({ metadata }: Partial<Pick<ServiceError, 'metadata'>>): ErrorInfo | undefined => {
  const [bytes] = metadata?.get('grpc-status-details-bin') ?? [];
  const details = bytes === undefined ? [] : fromBinary(StatusSchema, bytes as Buffer).details;
  const found = details.find(({ typeUrl }) => typeUrl.endsWith('/google.rpc.ErrorInfo'));
  return found && fromBinary(ErrorInfoSchema, found.value);
};
