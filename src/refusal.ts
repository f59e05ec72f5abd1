/** Every reason a call can be refused with: the names of the contract's `ErrorReason`, without their prefix. */
export const REASONS = [
  'INVALID_FIELD',
  'CONTENT_TOO_LARGE',
  'INVALID_PAGE_TOKEN',
  'REQUEST_ID_REUSED',
  'LANGUAGE_IMMUTABLE',
  'USER_NOT_FOUND',
  'PROJECT_NOT_FOUND',
  'MEMBER_NOT_FOUND',
  'DOCUMENT_NOT_FOUND',
  'VERSION_NOT_FOUND',
  'EXECUTION_NOT_FOUND',
  'EXPORT_NOT_FOUND',
  'EMAIL_TAKEN',
  'ETAG_MISMATCH',
  'VERSION_CONFLICT',
  'ILLEGAL_TRANSITION',
  'LAST_OWNER',
  'PROJECT_DELETED',
  'LEASE_LOST',
  'EXPORT_EXPIRED',
  'EXPORT_NOT_READY',
  'QUOTA_EXCEEDED',
  'REVISION_COMPACTED',
  'UNAUTHENTICATED',
  'ROLE_REQUIRED',
  'SCOPE_REQUIRED',
  'ACTOR_UNKNOWN',
  'OVERLOADED',
  'CONTENTION',
  'DATABASE_UNAVAILABLE',
  'SHUTTING_DOWN',
  'DEADLINE',
  'INTERNAL',
] as const;

export type Reason = (typeof REASONS)[number];

/** A field of the request that breaks a rule: its path as in the proto (`entries[3].content`), and what was expected. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** Whether a failed mutation took effect. */
export type Outcome = 'not_applied' | 'unknown';

export interface RefusalDetails {
  /** Machine-readable facts for the caller; never content. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly fields?: readonly FieldViolation[];
  readonly outcome?: Outcome;
  /** What happened, for the operator's log; never sent. */
  readonly cause?: unknown;
}

/** An expected "no": what the caller is told. The wire code of a reason stands in `rpc/errors.ts`. */
export class Refusal extends Error {
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;
  readonly fields: readonly FieldViolation[];
  readonly outcome: Outcome;

  constructor(reason: Reason, message: string, details: RefusalDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'Refusal';
    this.reason = reason;
    this.metadata = details.metadata ?? {};
    this.fields = details.fields ?? [];
    this.outcome = details.outcome ?? 'not_applied';
  }
}

/** The refusal of one field, for rules that the proto cannot state. */
export const invalidField = (field: string, description: string): Refusal =>
  new Refusal('INVALID_FIELD', `${field}: ${description}`, { fields: [{ field, description }] });

/** What a caller reads when nothing more particular is to be said. */
const MESSAGES: Partial<Record<Reason, string>> = {
  REQUEST_ID_REUSED: 'this request_id was sent before with another request; use a new one',
  USER_NOT_FOUND: 'no such user, or not visible to the actor',
  PROJECT_NOT_FOUND: 'no such project, or not visible to the actor',
  MEMBER_NOT_FOUND: 'the user is no member of the project',
  DOCUMENT_NOT_FOUND: 'the project has no document of this type',
  VERSION_NOT_FOUND: 'the document has no such version',
  EXECUTION_NOT_FOUND: 'the project has no such execution',
  EXPORT_NOT_FOUND: 'the project has no such export',
  EMAIL_TAKEN: 'another user has this e-mail address',
  ETAG_MISMATCH: 'the resource has changed since it was read; read it again, then decide',
  VERSION_CONFLICT: "the document's head is not expected_version; read it again, then decide",
  ILLEGAL_TRANSITION: 'the status cannot change this way',
  LAST_OWNER: 'a live project keeps at least one owner; make another member owner first',
  PROJECT_DELETED: 'the project is deleted; undelete it first',
  LEASE_LOST: 'the lease token is wrong, its lease ran out, or the work has ended',
  EXPORT_EXPIRED: 'the export has expired; create a new one',
  EXPORT_NOT_READY: 'the export is not complete yet',
  QUOTA_EXCEEDED: 'the project has reached its quota',
  REVISION_COMPACTED: 'changes this old are no longer kept; start from earliest_revision',
  LANGUAGE_IMMUTABLE: "a project's language never changes",
  INVALID_PAGE_TOKEN: 'the page token does not belong to this request; start from the first page',
  ROLE_REQUIRED: 'the actor may see this but its role does not allow the call',
  ACTOR_UNKNOWN: 'x-actor-id names no user, or one that was erased',
};

/** The field a reason is always about: what is wrong with a request is told with the field's path. */
const FIELDS: Partial<Record<Reason, string>> = {
  REQUEST_ID_REUSED: 'request_id',
  LANGUAGE_IMMUTABLE: 'project.language',
};

const known: ReadonlySet<string> = new Set(REASONS);

/**
 * The refusal a statement's verdict stands for: the verdict is the reason's name, its detail the metadata. A `field` in
 * the detail becomes the violated field.
 */
export const refusalOf = (verdict: string, detail: Readonly<Record<string, string>> = {}): Refusal => {
  const reason = known.has(verdict) ? (verdict as Reason) : 'INTERNAL';
  const { field = FIELDS[reason], description, ...metadata } = detail;
  const message = description ?? MESSAGES[reason] ?? reason;
  const fields = field === undefined ? [] : [{ field, description: message }];
  return new Refusal(reason, field === undefined ? message : `${field}: ${message}`, { metadata, fields });
};
