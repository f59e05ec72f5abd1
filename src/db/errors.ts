import { Refusal } from '../refusal.ts';
import { StatementFailure } from './driver.ts';

/** What a SQLSTATE (or its class) means to a caller. https://www.postgresql.org/docs/18/errcodes-appendix.html */
const MEANING: Readonly<Record<string, 'CONTENTION' | 'DATABASE_UNAVAILABLE' | 'DEADLINE' | 'INVALID_FIELD'>> = {
  '40001': 'CONTENTION', // serialization_failure
  '40P01': 'CONTENTION', // deadlock_detected
  '55P03': 'CONTENTION', // lock_not_available
  '57014': 'DEADLINE', // query_canceled
  '25P04': 'DEADLINE', // transaction_timeout
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
} as const;

const NETWORK = /^(E[A-Z]+)$/;

interface PostgresError extends Error {
  readonly code?: string;
  readonly constraint?: string;
  readonly column?: string;
  readonly table?: string;
}

/** Slonik wraps the driver's failures: the first of the chain that is ours, and what PostgreSQL said. */
const unwrap = (error: unknown): { failure: StatementFailure | undefined; cause: PostgresError } => {
  let current = error;
  for (let depth = 0; depth < 5 && current instanceof Error; depth++) {
    if (current instanceof StatementFailure) {
      return { failure: current, cause: current.cause as PostgresError };
    }
    current = current.cause;
  }
  return { failure: undefined, cause: error as PostgresError };
};

const meaningOf = (code: string, message: string) => {
  if (NETWORK.test(code) || /connection terminated|timeout expired|connection (?:ended|closed)/i.test(message)) {
    return 'DATABASE_UNAVAILABLE';
  }
  return MEANING[code] ?? MEANING[code.slice(0, 2)];
};

/**
 * What a failure of the database means to the caller. A statement PostgreSQL has answered with an error is rolled back; one
 * whose answer was lost may have been applied.
 */
export const databaseRefusal = (error: unknown, statement: string): Refusal => {
  const { failure, cause } = unwrap(error);
  const code = failure?.code ?? cause.code ?? '';
  // Whatever keeps a connection from being made, a wrong password too, is the operator's to mend, not the caller's.
  const unsent = failure?.sent === false && code !== '57014';
  const meaning = unsent ? 'DATABASE_UNAVAILABLE' : meaningOf(code, cause.message ?? '');
  const answered = /^[0-9A-Z]{5}$/.test(code) && !code.startsWith('08') && !/^57P0/.test(code) && !NETWORK.test(code);
  const outcome = failure?.sent === false || answered ? 'not_applied' : 'unknown';
  if (meaning === undefined) {
    return new Refusal('INTERNAL', `${statement} failed`, { cause, outcome });
  }
  if (meaning === 'INVALID_FIELD') {
    const field = cause.column ?? cause.constraint ?? '';
    return new Refusal('INVALID_FIELD', `the database refuses the value: ${cause.constraint ?? field}`, {
      metadata: { constraint: cause.constraint ?? '' },
      fields: [{ field, description: `breaks ${cause.constraint ?? 'a constraint'}` }],
      cause,
    });
  }
  return new Refusal(meaning, MESSAGES[meaning], { cause, outcome });
};

/** What happened, for the operator: the refusal, and what PostgreSQL or the network said. Of statements without content. */
export const whatHappened = (error: unknown): string => {
  let origin = error;
  while (origin instanceof Error && origin.cause instanceof Error) origin = origin.cause;
  // A refused connection to a name with several addresses says nothing by itself.
  const said = origin instanceof AggregateError ? origin.errors.map(whatHappened).join('; ') : messageOf(origin);
  return messageOf(error) === said ? said : `${messageOf(error)} (${said})`;
};

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
