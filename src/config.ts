import { resolve } from 'node:path';
import { z } from 'zod';
import { type Address, formatAddress, isLoopback, parseAddress } from './rpc/listen.ts';

/** What the environment says, checked. Holds secrets: never log it as a whole. */
export interface Config {
  readonly grpcListen: Address;
  readonly httpListen: Address;
  /** A plaintext address for health alone, or null. */
  readonly healthListen: Address | null;
  readonly allowedOrigins: readonly string[];
  /** Null: an embedded PostgreSQL under `dataDir`. */
  readonly databaseUrl: string | null;
  readonly migrationDatabaseUrl: string | null;
  readonly adminDatabaseUrl: string | null;
  readonly ownerPassword: string | null;
  readonly appPassword: string | null;
  /** Absolute. */
  readonly dataDir: string;
  readonly migrate: MigrateMode;
  readonly poolSize: number;
  readonly pageTokenSecret: Buffer | null;
  readonly shutdownGraceSeconds: number;
  readonly logLevel: (typeof LOG_LEVELS)[number];
}

export type MigrateMode = (typeof MIGRATE_MODES)[number];

const MIGRATE_MODES = ['auto', 'check', 'off'] as const;
const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** Every mistake of the environment at once; the message never repeats a value, which could be a secret. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`the configuration has ${problems.length === 1 ? 'a mistake' : `${problems.length} mistakes`}:
${problems.map((problem) => `  ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

interface Variable<T> {
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

function parseDatabaseUrl(text: string): string | undefined {
  const url = URL.parse(text);
  const known = url?.protocol === 'postgres:' || url?.protocol === 'postgresql:';
  return known && url.hostname !== '' && url.pathname.length > 1 ? text : undefined;
}

const databaseUrl = (role: string, example: string) =>
  variable(value(parseDatabaseUrl).optional(), `a URL postgres://user:password@host:port/database${role}`, example);

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

/** At least 32 bytes, written in hexadecimal or base64. */
function parseSecret(text: string): Buffer | undefined {
  if (/^([0-9a-f]{2}){32,}$/i.test(text)) return Buffer.from(text, 'hex');
  const bytes = /^[A-Za-z0-9+/_-]+={0,2}$/.test(text) ? Buffer.from(text, 'base64') : Buffer.alloc(0);
  return bytes.length >= 32 ? bytes : undefined;
}

const password = variable(
  z
    .string()
    .regex(/^[!-~]{12,200}$/)
    .optional(),
  '12 to 200 printable ASCII characters without spaces; unset: generated and printed once',
  'what `openssl rand -hex 24` prints',
);

/** Every variable the service reads, in the order of `.env.example`. */
export const VARIABLES = {
  GRPC_LISTEN: listen('127.0.0.1:50051'),
  HTTP_LISTEN: listen('127.0.0.1:8080'),
  HEALTH_LISTEN: variable(value(parseListen).optional(), LISTEN, '0.0.0.0:50052'),
  ALLOWED_ORIGINS: variable(
    value(parseOrigins).default([]),
    'origins separated by commas, each scheme://host[:port] without a path; no wildcard',
    'https://app.example.com,http://localhost:3000',
  ),
  DATABASE_URL: databaseUrl(' of the role jeex_app; unset: embedded', 'postgres://jeex_app:secret@localhost:5432/jeex'),
  MIGRATION_DATABASE_URL: databaseUrl(
    ' of the role jeex_owner, direct (not through PgBouncer)',
    'postgres://jeex_owner:secret@localhost:5432/jeex',
  ),
  MIGRATE: variable(z.enum(MIGRATE_MODES).default('auto'), 'auto, check or off', 'auto'),
  POOL_SIZE: variable(integer(1, 1000).default(10), 'a whole number from 1 to 1000', '10'),
  DATA_DIR: variable(value((text) => text).default('.data'), 'a directory', '.data'),
  PAGE_TOKEN_SECRET: variable(
    value(parseSecret).optional(),
    'at least 32 bytes in hexadecimal or base64, the same for every replica',
    'what `openssl rand -hex 32` prints',
  ),
  SHUTDOWN_GRACE_SECONDS: variable(integer(0, 3600).default(30), 'whole seconds from 0 to 3600', '30'),
  LOG_LEVEL: variable(z.enum(LOG_LEVELS).default('info'), LOG_LEVELS.join(', '), 'info'),
  ADMIN_DATABASE_URL: databaseUrl(
    ' of a role that may create roles and databases',
    'postgres://postgres:secret@localhost:5432/postgres',
  ),
  OWNER_PASSWORD: password,
  APP_PASSWORD: password,
} as const;

type Name = keyof typeof VARIABLES;
type Values = { [N in Name]: (typeof VARIABLES)[N] extends Variable<infer T> ? T : never };

/**
 * Reads the configuration: the only place that looks at the environment. An empty variable counts as unset.
 * @param use a single command leaves out the rules that only matter to a service
 * @throws ConfigError naming every variable that is wrong, what was expected, and an example.
 */
export function loadConfig(
  env: Readonly<Record<string, string | undefined>> = process.env,
  use: 'service' | 'command' = 'service',
): Config {
  const problems: string[] = [];
  const values: Partial<Record<Name, unknown>> = {};
  for (const name of Object.keys(VARIABLES) as Name[]) {
    const { schema, expected, example } = VARIABLES[name] as Variable<unknown>;
    const result = schema.safeParse(env[name] || undefined);
    if (result.success) values[name] = result.data;
    else problems.push(`${name}: expected ${expected} (for example ${example})`);
  }
  if (use === 'service') problems.push(...contradictions(values as Partial<Values>));
  if (problems.length > 0) throw new ConfigError(problems);
  return toConfig(values as Values);
}

/** Rules over more than one variable; a variable that is wrong by itself is absent here. */
function contradictions(values: Partial<Values>): string[] {
  const problems: string[] = [];
  const taken = new Map<string, string>();
  for (const name of ['GRPC_LISTEN', 'HTTP_LISTEN', 'HEALTH_LISTEN'] as const) {
    const listen = values[name];
    if (!listen) continue;
    if (name !== 'HEALTH_LISTEN' && !isLoopback(listen.host)) {
      problems.push(
        `${name}: expected a loopback address, since authentication is not configured and any caller could then ` +
          `read and write everything (for example ${VARIABLES[name].example})`,
      );
    }
    const address = formatAddress(listen);
    const other = taken.get(address);
    if (listen.port !== 0 && other) problems.push(`${name}: expected another address than ${other}'s`);
    taken.set(address, name);
  }
  if (values.DATABASE_URL && !values.MIGRATION_DATABASE_URL && values.MIGRATE === 'auto') {
    const { expected, example } = VARIABLES.MIGRATION_DATABASE_URL;
    problems.push(
      `MIGRATION_DATABASE_URL: expected ${expected} (for example ${example}), because DATABASE_URL is set and MIGRATE ` +
        'is auto; or MIGRATE=check, or MIGRATE=off',
    );
  }
  return problems;
}

const toConfig = (values: Values): Config => ({
  grpcListen: values.GRPC_LISTEN,
  httpListen: values.HTTP_LISTEN,
  healthListen: values.HEALTH_LISTEN ?? null,
  allowedOrigins: values.ALLOWED_ORIGINS,
  databaseUrl: values.DATABASE_URL ?? null,
  migrationDatabaseUrl: values.MIGRATION_DATABASE_URL ?? null,
  adminDatabaseUrl: values.ADMIN_DATABASE_URL ?? null,
  ownerPassword: values.OWNER_PASSWORD ?? null,
  appPassword: values.APP_PASSWORD ?? null,
  dataDir: resolve(values.DATA_DIR),
  migrate: values.MIGRATE,
  poolSize: values.POOL_SIZE,
  pageTokenSecret: values.PAGE_TOKEN_SECRET ?? null,
  shutdownGraceSeconds: values.SHUTDOWN_GRACE_SECONDS,
  logLevel: values.LOG_LEVEL,
});
