import { type Outcome, Refusal } from '../refusal.ts';
import { CircuitOpen } from './breaker.ts';
import { ConnectFailure, isFull } from './connect-failure.ts';

/** What a SQLSTATE (or its class) means to a caller. https://www.postgresql.org/docs/18/errcodes-appendix.html */
const MEANING: Readonly<Record<string, keyof typeof MESSAGES | 'INVALID_FIELD'>> = {
  '40001': 'CONTENTION', // serialization_failure
  '40P01': 'CONTENTION', // deadlock_detected
  '55P03': 'CONTENTION', // lock_not_available
  '57014': 'DEADLINE', // query_canceled
  '25P04': 'DEADLINE', // transaction_timeout
  '53300': 'OVERLOADED', // too_many_connections
  '23514': 'INVALID_FIELD', // check_violation
  '23503': 'INVALID_FIELD', // foreign_key_violation
  '23502': 'INVALID_FIELD', // not_null_violation
  '08': 'DATABASE_UNAVAILABLE', // connection exceptions, PgBouncer's among them
  '53': 'DATABASE_UNAVAILABLE', // insufficient resources
  '57': 'DATABASE_UNAVAILABLE', // operator intervention: shutting down, starting up
};

const MESSAGES = {
  CONTENTION: 'other calls were changing the same rows; send the call again',
  DATABASE_UNAVAILABLE: 'the database cannot be reached; send the call again',
  DEADLINE: 'the call took longer than its deadline',
  OVERLOADED: 'every connection to the database is in use; send the call again, a little later',
} as const;

/** Codes of Node and of OpenSSL for a connection that has broken; a SQLSTATE has five characters. */
const NETWORK = /^(?:E(?!RR_)[A-Z]+(?:_[A-Z]+)?|ERR_(?:SSL|TLS|STREAM|SOCKET)_\w+)$/;
/** What `pg` and Slonik say without a code when a connection has broken, or is being thrown away. */
const BROKEN =
  /connection (?:terminated|ended|closed)|timeout expired|not queryable|client is (?:pending destroy|destroyed)|pool (?:is being|has been) (?:shut down|terminated)|pool has ended/i;
/** PgBouncer, to a client whose statement still waits for a server connection: nobody has passed it on. */
const WAITED_AT_POOLER = 'query_wait_timeout';
const SERVER_IS_DOWN = /^server login has been failing/;
/** `pg`, of a connection that it knew to be broken: it has written nothing. */
const NEVER_WRITTEN = /is not queryable$/;
/** How a session ends from outside, at whatever point of its work; `cannot_connect_now` comes before any. */
const ENDED_FROM_OUTSIDE = /^(?:08|57P(?!03))/;

/** A commit that was told to stop while it waited for a standby: it is done, and a failover may lose it. */
export class Unreplicated extends Error {
  constructor() {
    super('the commit was cancelled while it waited for a standby, which may not have it');
  }
}

interface Said extends Error {
  readonly code?: string;
  readonly severity?: string;
  readonly constraint?: string;
  readonly column?: string;
}

/** What Slonik has wrapped: why there was no connection, or what the driver's statement failed with. */
const originOf = (error: unknown): Said | ConnectFailure => {
  let origin = error;
  while (!(origin instanceof ConnectFailure) && origin instanceof Error && origin.cause instanceof Error) {
    origin = origin.cause;
  }
  return origin instanceof Error ? origin : new Error(String(origin));
};

const isSqlState = (code: string): boolean => /^[0-9A-Z]{5}$/.test(code) && !NETWORK.test(code);

/** What a failure of the database is counted as: PostgreSQL's SQLSTATE, or what its caller was told. */
export const errorTypeOf = (error: unknown, refusal: Refusal): string => {
  const { code = '' } = originOf(error) as Said;
  return isSqlState(code) ? code : refusal.reason;
};

const meaningOf = (said: Said) => {
  const { code = '', message, severity } = said;
  // Whatever keeps a connection from being made, a wrong password too, is the operator's to mend, not the caller's.
  if (said instanceof ConnectFailure) return isFull(said) ? 'OVERLOADED' : 'DATABASE_UNAVAILABLE';
  if (message === WAITED_AT_POOLER) return 'OVERLOADED';
  if (said instanceof Unreplicated) return 'DEADLINE';
  if (!isSqlState(code)) return NETWORK.test(code) || BROKEN.test(message) ? 'DATABASE_UNAVAILABLE' : undefined;
  // The same through a pooler, whose connection to the server is made only when a statement needs it.
  const ended = severity === 'FATAL' || severity === 'PANIC' ? 'DATABASE_UNAVAILABLE' : undefined;
  return MEANING[code] ?? MEANING[code.slice(0, 2)] ?? ended;
};

/** A statement that PostgreSQL has answered with an error is rolled back; one whose answer was lost may have been applied. */
const outcomeOf = ({ code = '', message, severity }: Said, sent: boolean): Outcome => {
  if (!sent || message === WAITED_AT_POOLER || SERVER_IS_DOWN.test(message)) return 'not_applied';
  if (NEVER_WRITTEN.test(message)) return 'not_applied';
  // A server that gives up in the middle of a commit finds out in its recovery whether the commit was written.
  if (severity === 'PANIC') return 'unknown';
  return isSqlState(code) && !ENDED_FROM_OUTSIDE.test(code) ? 'not_applied' : 'unknown';
};

/**
 * What a failure of the database means to the caller.
 * @param sent whether the statement was handed to a connection: what never was, was never applied
 */
export const databaseRefusal = (error: unknown, statement: string, sent: boolean): Refusal => {
  const said = originOf(error);
  const meaning = meaningOf(said);
  const outcome = outcomeOf(said, sent);
  if (meaning === undefined) return new Refusal('INTERNAL', `${statement} failed`, { cause: said, outcome });
  if (meaning === 'INVALID_FIELD') return invalid(said);
  return new Refusal(meaning, MESSAGES[meaning], { cause: said, outcome });
};

/** A value that a rule of the database refuses. */
const invalid = (said: Said): Refusal => {
  const { column, constraint = '' } = said;
  return new Refusal('INVALID_FIELD', `the database refuses the value: ${constraint || column}`, {
    metadata: { constraint },
    fields: [{ field: column ?? constraint, description: `breaks ${constraint || 'a constraint'}` }],
    cause: said,
  });
};

/** The refusal of a call whose turn for a connection did not come in time. */
export const overloaded = (cause: unknown): Refusal => new Refusal('OVERLOADED', MESSAGES.OVERLOADED, { cause });

/** Whether a pooler says that it does not reach the server: it let the client in, and connects only when a statement comes. */
export const isUnreached = (error: unknown): boolean => {
  const { code, message } = error as Said;
  return code === '57P03' || SERVER_IS_DOWN.test(message);
};

/** Why a statement is worth sending again: others were in its way, or its connection was lost. */
export type RetryReason = 'contention' | 'connection';

/** What PostgreSQL has rolled back for others' sake: serialization_failure and deadlock_detected. */
const ROLLED_BACK = new Set(['40001', '40P01']);
/** A full disk and the like do not pass by in a moment. */
const INSUFFICIENT_RESOURCES = '53';

/**
 * Whether a statement that failed so may be sent again, and why; null: not.
 * @param harmless whether it may run twice; else it is sent again only where it certainly had no effect
 */
export const retryReasonOf = ({ reason, outcome, cause }: Refusal, harmless: boolean): RetryReason | null => {
  const origin = originOf(cause);
  const { code = '' } = origin as Said;
  if (ROLLED_BACK.has(code)) return 'contention';
  if (reason !== 'DATABASE_UNAVAILABLE' || code.startsWith(INSUFFICIENT_RESOURCES)) return null;
  // The breaker is there to fail at once.
  if (origin instanceof CircuitOpen) return null;
  return harmless || outcome === 'not_applied' ? 'connection' : null;
};

/** What happened, for the operator: the refusal, and what PostgreSQL or the network said. Of statements without content. */
export const whatHappened = (error: unknown): string => {
  const origin = originOf(error);
  if (origin instanceof ConnectFailure) return origin.message;
  const told = messageOf(error);
  return told === origin.message ? told : `${told} (${origin.message})`;
};

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
