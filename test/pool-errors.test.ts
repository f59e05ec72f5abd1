import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { connectFailure } from '../src/db/connect-failure.ts';
import { databaseRefusal, whatHappened } from '../src/db/errors.ts';
import type { Outcome, Reason } from '../src/refusal.ts';

const URL_OF_IT = 'postgres://jeex_app:hidden@db.example:6432/jeex?sslmode=verify-full&sslrootcert=/run/ca.crt';

interface Said {
  readonly code?: string;
  readonly severity?: string;
  readonly message?: string;
}

/** What `pg` throws for it, wrapped as Slonik does. */
const thrown = ({ message = 'said by the server', ...fields }: Said): Error =>
  new Error('wrapped', { cause: Object.assign(new Error(message), fields) });
const pooler = (message: string): Said => ({ code: '08P01', severity: 'FATAL', message });
const server = (code: string, severity = 'ERROR'): Said => ({ code, severity });

/** While a statement was under way: what its caller is told, and whether it may have taken effect. */
const UNDER_WAY: readonly (readonly [string, Said, Reason, Outcome])[] = [
  ['serialization_failure', server('40001'), 'CONTENTION', 'not_applied'],
  ['deadlock_detected', server('40P01'), 'CONTENTION', 'not_applied'],
  ['lock_not_available', server('55P03'), 'CONTENTION', 'not_applied'],
  ['query_canceled', server('57014'), 'DEADLINE', 'not_applied'],
  ['transaction_timeout', server('25P04', 'FATAL'), 'DEADLINE', 'not_applied'],
  ['out_of_memory', server('53200'), 'DATABASE_UNAVAILABLE', 'not_applied'],
  ['disk_full', server('53100'), 'DATABASE_UNAVAILABLE', 'not_applied'],
  ['too_many_connections', server('53300'), 'OVERLOADED', 'not_applied'],
  ['disk_full in a commit', server('53100', 'PANIC'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['internal_error in a commit', server('XX000', 'PANIC'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['admin_shutdown', server('57P01', 'FATAL'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['crash_shutdown', server('57P02', 'FATAL'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['idle_session_timeout', server('57P05', 'FATAL'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['connection_failure', server('08006', 'FATAL'), 'DATABASE_UNAVAILABLE', 'unknown'],
  // A pooler connects when a statement comes; what its server then says of the login is told to who sent the statement.
  ['cannot_connect_now', server('57P03', 'FATAL'), 'DATABASE_UNAVAILABLE', 'not_applied'],
  ['too_many_connections at login', server('53300', 'FATAL'), 'OVERLOADED', 'not_applied'],
  ['invalid_password at login', server('28P01', 'FATAL'), 'DATABASE_UNAVAILABLE', 'not_applied'],
  ['invalid_catalog_name at login', server('3D000', 'FATAL'), 'DATABASE_UNAVAILABLE', 'not_applied'],
  ['PgBouncer: waited too long', pooler('query_wait_timeout'), 'OVERLOADED', 'not_applied'],
  [
    'PgBouncer: no server',
    pooler('server login has been failing, cached error: connect failed (server_login_retry)'),
    'DATABASE_UNAVAILABLE',
    'not_applied',
  ],
  ['PgBouncer: its server went away', pooler('server conn crashed?'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['PgBouncer: stopping', pooler('server shutting down'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['PgBouncer: idle for too long', pooler('client_idle_timeout'), 'DATABASE_UNAVAILABLE', 'unknown'],
  ['the connection is cut', { code: 'ECONNRESET', message: 'read ECONNRESET' }, 'DATABASE_UNAVAILABLE', 'unknown'],
  ['nobody reads', { code: 'EPIPE', message: 'write EPIPE' }, 'DATABASE_UNAVAILABLE', 'unknown'],
  ['no name service', { code: 'EAI_AGAIN', message: 'getaddrinfo' }, 'DATABASE_UNAVAILABLE', 'unknown'],
  ['TLS breaks', { code: 'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC' }, 'DATABASE_UNAVAILABLE', 'unknown'],
  ['the server is gone', { message: 'Connection terminated unexpectedly' }, 'DATABASE_UNAVAILABLE', 'unknown'],
  [
    'pg found it broken',
    { message: 'Client has encountered a connection error and is not queryable' },
    'DATABASE_UNAVAILABLE',
    'not_applied',
  ],
  ['Slonik throws it away', { message: 'Client is pending destroy.' }, 'DATABASE_UNAVAILABLE', 'unknown'],
  ['syntax_error', server('42601'), 'INTERNAL', 'not_applied'],
  ['a mistake of ours', { code: 'ERR_INVALID_ARG_TYPE' }, 'INTERNAL', 'unknown'],
];

/** While a connection was made: nothing was sent. */
const CONNECTING: readonly (readonly [string, Said, Reason, RegExp])[] = [
  ['refused', { code: 'ECONNREFUSED' }, 'DATABASE_UNAVAILABLE', /nothing accepts connections at db.example:6432/],
  ['unknown name', { code: 'ENOTFOUND' }, 'DATABASE_UNAVAILABLE', /the name db.example is not known/],
  ['no route', { code: 'EHOSTUNREACH' }, 'DATABASE_UNAVAILABLE', /db.example:6432 does not answer/],
  ['no answer', { message: 'timeout expired' }, 'DATABASE_UNAVAILABLE', /db.example:6432 does not answer/],
  [
    'TLS handshake cut',
    { code: 'ECONNRESET', message: 'Client network socket disconnected before secure TLS connection was established' },
    'DATABASE_UNAVAILABLE',
    /has closed the connection before it was made/,
  ],
  ['cut', { message: 'Connection terminated unexpectedly' }, 'DATABASE_UNAVAILABLE', /has closed the connection/],
  ['starting', server('57P03', 'FATAL'), 'DATABASE_UNAVAILABLE', /is starting or stopping/],
  ['stopping', server('57P01', 'FATAL'), 'DATABASE_UNAVAILABLE', /is starting or stopping/],
  ['PostgreSQL is full', server('53300', 'FATAL'), 'OVERLOADED', /has no connection left/],
  [
    'PgBouncer is full',
    pooler('no more connections allowed (max_client_conn)'),
    'OVERLOADED',
    /has no connection left.*POOL_SIZE/,
  ],
  ['PgBouncer has no server', pooler('client_login_timeout (server down)'), 'DATABASE_UNAVAILABLE', /does not answer/],
  ['wrong password', server('28P01', 'FATAL'), 'DATABASE_UNAVAILABLE', /the password of the role jeex_app/],
  [
    'wrong password at PgBouncer',
    pooler('SASL authentication failed'),
    'DATABASE_UNAVAILABLE',
    /the password of the role/,
  ],
  [
    'SCRAM is interrupted',
    { message: 'SASL: SCRAM-SERVER-FINAL-MESSAGE: server signature does not match' },
    'DATABASE_UNAVAILABLE',
    /the password of the role/,
  ],
  ['not let in', server('28000', 'FATAL'), 'DATABASE_UNAVAILABLE', /does not let the role jeex_app in.*pg_hba\.conf/],
  ['no database', server('3D000', 'FATAL'), 'DATABASE_UNAVAILABLE', /has no database jeex/],
  [
    'what nobody foresaw',
    { message: 'something new' },
    'DATABASE_UNAVAILABLE',
    /no connection to db\.example:6432 \(something new\)/,
  ],
];

describe('a failure while a statement is under way', () => {
  for (const [name, said, reason, outcome] of UNDER_WAY) {
    it(`${name} is ${reason}, ${outcome}`, () => {
      const refusal = databaseRefusal(thrown(said), 'test.statement', true);
      assert.deepEqual([refusal.reason, refusal.outcome], [reason, outcome]);
    });
  }
});

describe('a failure to connect', () => {
  for (const [name, said, reason, line] of CONNECTING) {
    it(`${name} is ${reason}, and one line for the operator`, () => {
      const failure = connectFailure(thrown(said).cause as Error, URL_OF_IT);
      const refusal = databaseRefusal(new Error('wrapped', { cause: failure }), 'test.statement', false);
      assert.deepEqual([refusal.reason, refusal.outcome], [reason, 'not_applied']);
      assert.match(whatHappened(refusal), line);
      assert.doesNotMatch(whatHappened(refusal), /\n|hidden/);
    });
  }

  it('to a name with several addresses says what each of them said', () => {
    const each = ['::1', '127.0.0.1'].map((address) => new Error(`connect ECONNREFUSED ${address}`));
    const said = Object.assign(new AggregateError(each, ''), { code: 'ECONNREFUSED' });
    assert.match(connectFailure(said, URL_OF_IT).message, /ECONNREFUSED ::1; connect ECONNREFUSED 127\.0\.0\.1/);
  });
});
