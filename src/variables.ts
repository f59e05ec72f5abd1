import { z } from 'zod';
import { ALERTS_EXPECTED, parseAlerts } from './monitor/thresholds.ts';
import { type Address, isLoopback, parseAddress } from './rpc/listen.ts';

export const MIGRATE_MODES = ['auto', 'check', 'off'] as const;
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export const AUDITED_READS = ['all', 'aggregate', 'writes'] as const;
export const FULL_ACCESS_LOG = ['drop', 'refuse'] as const;

/** What may sign a token: asymmetric algorithms alone, so that who can check a token cannot make one. */
const TOKEN_ALGORITHMS = [
  'EdDSA',
  'Ed25519',
  'ES256',
  'ES384',
  'ES512',
  'PS256',
  'PS384',
  'PS512',
  'RS256',
  'RS384',
  'RS512',
];

export interface Variable<T> {
  readonly schema: z.ZodType<T, string | undefined>;
  readonly expected: string;
  readonly example: string;
}

/** A value that `parse` understands: it answers undefined for what it does not. */
const value = <T>(parse: (text: string) => T | undefined) =>
  z.string().transform((text, context): T => {
    const parsed = parse(text);
    if (parsed !== undefined) return parsed;
    context.addIssue({ code: 'custom', message: 'not understood' });
    return z.NEVER;
  });

const variable = <T>(schema: z.ZodType<T, string | undefined>, expected: string, example: string): Variable<T> => ({
  schema,
  expected,
  example,
});

function parseListen(text: string): Address | undefined {
  try {
    return parseAddress(text);
  } catch {
    return undefined;
  }
}

const listen = (example: string) => variable(value(parseListen).default(parseAddress(example)), LISTEN, example);
const LISTEN = 'host:port, an IPv6 host in brackets, port 0 for any free one';

/**
 * Only what leaves one place for user and password, so that others (a role's, one from a file) can take it: a URL without a
 * host has none, and `pg` would let a parameter win over it.
 */
function parseDatabaseUrl(text: string): string | undefined {
  const url = URL.parse(text);
  const known = url?.protocol === 'postgres:' || url?.protocol === 'postgresql:';
  if (!known || url.hostname === '' || url.pathname.length < 2 || !isDecodable(url.pathname)) return undefined;
  return url.searchParams.has('user') || url.searchParams.has('password') ? undefined : text;
}

function isDecodable(path: string): boolean {
  try {
    return decodeURIComponent(path) !== '';
  } catch {
    return false;
  }
}

const databaseUrl = (role: string, example: string) =>
  variable(
    value(parseDatabaseUrl).optional(),
    `a URL postgres://user:password@host:port/database${role}; a socket's directory is a host too, with %2F for each /; ` +
      'user and password stand before the host, not among the parameters',
    example,
  );

function parseOrigins(text: string): string[] | undefined {
  const origins = text.split(',').map((origin) => origin.trim());
  const known = (origin: string) => /^https?:/.test(origin) && URL.parse(origin)?.origin === origin;
  return origins.every(known) ? origins : undefined;
}

const integer = (least: number, most: number) =>
  value((text) => {
    const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    return number >= least && number <= most ? number : undefined;
  });

/** Words separated by commas, each of them known. */
const listOf = (known: readonly string[]) =>
  value((text) => {
    const words = text.split(',').map((word) => word.trim());
    return words.every((word) => known.includes(word)) ? words : undefined;
  });

/** Texts separated by commas, without blanks around them. */
function parseNames(text: string): string[] | undefined {
  const names = text.split(',').map((name) => name.trim());
  return names.every((name) => /^[!-~]{1,255}$/.test(name)) ? names : undefined;
}

/** A file, or a URL: https, or http of this machine. */
function parseKeySource(text: string): string | undefined {
  if (!/^[a-z]+:\/\//i.test(text)) return text;
  const url = URL.parse(text);
  return url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname)) ? text : undefined;
}

const text = (what: string, example: string) => variable(z.string().optional(), what, example);
const YES_NO = value((text) => (text === 'true' ? true : text === 'false' ? false : undefined));

/** Every variable the service reads, in the order of `.env.example`. */
export const VARIABLES = {
  GRPC_LISTEN: listen('127.0.0.1:50051'),
  HTTP_LISTEN: listen('127.0.0.1:8080'),
  HEALTH_LISTEN: variable(value(parseListen).optional(), LISTEN, '0.0.0.0:50052'),
  AUTH_JWKS: variable(
    value(parseKeySource).optional(),
    'a file or an https URL with a JSON Web Key Set; unset: authentication is off',
    'https://login.example.com/.well-known/jwks.json',
  ),
  AUTH_ISSUER: text("the tokens' issuer (claim iss)", 'https://login.example.com'),
  AUTH_AUDIENCE: variable(
    value(parseNames).default(['jeex-persistence']),
    "this service's names in the tokens (claim aud), separated by commas",
    'jeex-persistence',
  ),
  AUTH_ALGORITHMS: variable(
    listOf(TOKEN_ALGORITHMS).default(['EdDSA', 'ES256', 'PS256', 'RS256']),
    `some of ${TOKEN_ALGORITHMS.join(', ')}, separated by commas`,
    'EdDSA,ES256,PS256,RS256',
  ),
  TLS_CERT_FILE: text('a file with the certificate and its intermediates, PEM', '/run/secrets/tls/tls.crt'),
  TLS_KEY_FILE: text("a file with the certificate's private key, PEM", '/run/secrets/tls/tls.key'),
  TLS_CLIENT_CA_FILE: text('a file with the authorities of client certificates, PEM', '/run/secrets/tls/ca.crt'),
  TLS_CLIENT_NAMES: variable(
    value(parseNames).default([]),
    'names (DNS or URI) that client certificates may have, separated by commas',
    'orchestrator.jeex.internal,spiffe://jeex/agents',
  ),
  ALLOW_PLAINTEXT: variable(YES_NO.default(false), 'true or false', 'false'),
  ALLOWED_ORIGINS: variable(
    value(parseOrigins).default([]),
    'origins separated by commas, each scheme://host[:port] without a path; no wildcard',
    'https://app.example.com,http://localhost:3000',
  ),
  DATABASE_URL: databaseUrl(' of the role jeex_app; unset: embedded', 'postgres://jeex_app:secret@localhost:5432/jeex'),
  DATABASE_PASSWORD_FILE: text(
    "a file with jeex_app's password, read again at each connect, for a DATABASE_URL without one",
    '/run/secrets/jeex/jeex_app',
  ),
  MIGRATION_DATABASE_URL: databaseUrl(
    ' of the role jeex_owner, direct (not through PgBouncer)',
    'postgres://jeex_owner:secret@localhost:5432/jeex',
  ),
  MIGRATION_DATABASE_PASSWORD_FILE: text(
    "a file with jeex_owner's password, for a MIGRATION_DATABASE_URL without one",
    '/run/secrets/jeex/jeex_owner',
  ),
  MIGRATE: variable(z.enum(MIGRATE_MODES).optional(), 'auto, check or off', 'check'),
  POOL_SIZE: variable(integer(2, 1000).default(10), 'a whole number from 2 to 1000', '10'),
  POOL_WAIT_MS: variable(integer(1, 60_000).default(3000), 'whole milliseconds from 1 to 60000', '3000'),
  MAX_REPLICAS: variable(integer(1, 1000).default(1), 'a whole number from 1 to 1000', '1'),
  PGBOUNCER_ADMIN_URL: databaseUrl(
    ' of the role jeex_monitor and the database pgbouncer',
    'postgres://jeex_monitor:secret@localhost:6432/pgbouncer',
  ),
  PGBOUNCER_ADMIN_PASSWORD_FILE: text(
    "a file with jeex_monitor's password, for a PGBOUNCER_ADMIN_URL without one",
    '/run/secrets/jeex/jeex_monitor',
  ),
  MONITOR_DATABASE_URL: databaseUrl(
    ' of the role jeex_monitor, direct (not through PgBouncer)',
    'postgres://jeex_monitor:secret@localhost:5432/jeex',
  ),
  MONITOR_DATABASE_PASSWORD_FILE: text(
    "a file with jeex_monitor's password, for a MONITOR_DATABASE_URL without one",
    '/run/secrets/jeex/jeex_monitor',
  ),
  LISTEN_DATABASE_URL: databaseUrl(
    ' of the role jeex_app, direct (not through PgBouncer)',
    'postgres://jeex_app:secret@localhost:5432/jeex',
  ),
  LISTEN_DATABASE_PASSWORD_FILE: text(
    "a file with jeex_app's password, for a LISTEN_DATABASE_URL without one",
    '/run/secrets/jeex/jeex_app',
  ),
  MONITOR_INTERVAL_SECONDS: variable(integer(1, 3600).default(30), 'whole seconds from 1 to 3600', '30'),
  SLOW_QUERY_MS: variable(integer(1, 3_600_000).default(1000), 'whole milliseconds from 1 to 3600000', '1000'),
  ALERTS: variable(value(parseAlerts).default([]), ALERTS_EXPECTED, 'connections.warning=0.7,cache_hit_ratio=off'),
  METRICS_PUBLIC: variable(YES_NO.default(false), 'true or false', 'false'),
  DATA_DIR: variable(value((text) => text).default('.data'), 'a directory', '.data'),
  ENCRYPTION_KEYS: text(
    'keys as id:key, separated by commas, the first one seals; an id is 1 to 65535, a key 32 bytes in hexadecimal or base64',
    '1:what `openssl rand -hex 32` prints',
  ),
  ENCRYPTION_KEYS_FILE: text('a file with such keys, one a line', '/run/secrets/jeex/encryption_keys'),
  KEEP_PAYLOADS_DAYS: variable(integer(1, 36_500).default(90), 'whole days from 1 to 36500', '90'),
  KEEP_EXPORTS_DAYS: variable(integer(1, 36_500).default(30), 'whole days from 1 to 36500', '30'),
  KEEP_CHANGES_DAYS: variable(integer(30, 36_500).optional(), 'whole days from 30 to 36500; unset: for ever', '365'),
  ACCESS_LOG: text('stdout, stderr or a file', '/var/log/jeex/access.log'),
  AUDIT_READS: variable(z.enum(AUDITED_READS).default('all'), AUDITED_READS.join(', '), 'all'),
  ACCESS_LOG_FULL: variable(z.enum(FULL_ACCESS_LOG).default('drop'), FULL_ACCESS_LOG.join(' or '), 'drop'),
  SHUTDOWN_DELAY_SECONDS: variable(integer(0, 600).default(0), 'whole seconds from 0 to 600', '0'),
  SHUTDOWN_GRACE_SECONDS: variable(integer(0, 3600).default(30), 'whole seconds from 0 to 3600', '30'),
  LOG_LEVEL: variable(z.enum(LOG_LEVELS).default('info'), LOG_LEVELS.join(', '), 'info'),
  ADMIN_DATABASE_URL: databaseUrl(
    ' of a role that may create roles and databases',
    'postgres://postgres:secret@localhost:5432/postgres',
  ),
  PASSWORDS_DIR: text(
    "a directory with one file for each role's password (jeex_owner, jeex_app, …)",
    '/run/secrets/jeex',
  ),
} as const;
