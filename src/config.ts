import { resolve } from 'node:path';
import { withPasswordFile } from './db/connection.ts';
import type { AlertSetting } from './monitor/thresholds.ts';
import { type Address, formatAddress, isLoopback } from './rpc/listen.ts';
import {
  type AUDITED_READS,
  type FULL_ACCESS_LOG,
  type LOG_LEVELS,
  type MIGRATE_MODES,
  VARIABLES,
  type Variable,
} from './variables.ts';

/** What the environment says, checked. Holds secrets: never log it as a whole. */
export interface Config {
  readonly grpcListen: Address;
  readonly httpListen: Address;
  /** A plaintext address for health alone, or null. */
  readonly healthListen: Address | null;
  /** Null: authentication is off. */
  readonly auth: AuthConfig | null;
  /** Null: the doors speak plaintext. */
  readonly tls: TlsConfig | null;
  readonly allowedOrigins: readonly string[];
  /** Null: an embedded PostgreSQL under `dataDir`. */
  readonly databaseUrl: string | null;
  readonly migrationDatabaseUrl: string | null;
  readonly adminDatabaseUrl: string | null;
  /** Of the roles' passwords, for `bootstrap`; null: generated. */
  readonly passwordsDir: string | null;
  /** Absolute. */
  readonly dataDir: string;
  /** What a start does about the schema; with `databaseUrl`, `auto` is there by explicit wish alone. */
  readonly migrate: MigrateMode;
  /** Connections to PgBouncer or PostgreSQL, at most, the readiness check's own one included. */
  readonly poolSize: number;
  /** How long a call waits for one of them, in milliseconds. */
  readonly poolWaitMs: number;
  /** Processes of this service at once, at most, during an update too. */
  readonly maxReplicas: number;
  /** PgBouncer's console; null: none is known. */
  readonly pgbouncerAdminUrl: string | null;
  /** As jeex_monitor, direct; null: the monitor looks as jeex_app, which is told less. */
  readonly monitorDatabaseUrl: string | null;
  /** As jeex_app, direct; null: what other processes change is found by polling. */
  readonly listenDatabaseUrl: string | null;
  /** How often the monitor measures, in seconds. */
  readonly monitorIntervalSeconds: number;
  /** From how many milliseconds on a statement is slow. */
  readonly slowQueryMs: number;
  /** What differs from the alerts' own thresholds. */
  readonly alerts: readonly AlertSetting[];
  /** Whether `/metrics` asks for no token, where every other call does. */
  readonly metricsPublic: boolean;
  /** Where the keys of sealed columns are; null: beside the embedded data. */
  readonly encryptionKeys: { readonly text: string } | { readonly file: string } | null;
  /** How long is kept what is kept for a time only. */
  readonly retention: RetentionConfig;
  readonly access: AccessConfig;
  /** How long a service that shall end goes on serving, so that balancers turn away from it first. */
  readonly shutdownDelaySeconds: number;
  readonly shutdownGraceSeconds: number;
  readonly logLevel: (typeof LOG_LEVELS)[number];
}

/** How tokens are checked. */
export interface AuthConfig {
  /** The JSON Web Key Set: a path or a URL. */
  readonly jwks: string;
  readonly issuer: string;
  readonly audience: readonly string[];
  readonly algorithms: readonly string[];
}

/** Files in PEM, read again when they change. */
export interface TlsConfig {
  readonly certFile: string;
  readonly keyFile: string;
  /** Null: no client certificate is asked for. */
  readonly clientCaFile: string | null;
  readonly clientNames: readonly string[];
}

/** Where and how calls are put on record. */
export interface AccessConfig {
  /** `stdout`, `stderr` or a file; null: a file beside the embedded data, standard output without one. */
  readonly target: string | null;
  readonly reads: (typeof AUDITED_READS)[number];
  /** What happens to calls while records cannot be written. */
  readonly full: (typeof FULL_ACCESS_LOG)[number];
}

/** How long is kept what is kept for a time only, in days. */
export interface RetentionConfig {
  /** Inputs and outputs, since their run ended. */
  readonly payloadDays: number;
  /** Exports, since they expired. */
  readonly exportDays: number;
  /** Changes; null: for ever. */
  readonly changeDays: number | null;
}

export type MigrateMode = (typeof MIGRATE_MODES)[number];

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
    if (name !== 'HEALTH_LISTEN' && !isLoopback(listen.host)) problems.push(...exposed(name, values));
    const address = formatAddress(listen);
    const other = taken.get(address);
    if (listen.port !== 0 && other) problems.push(`${name}: expected another address than ${other}'s`);
    taken.set(address, name);
  }
  if (values.DATABASE_URL && !values.MIGRATION_DATABASE_URL && values.MIGRATE === 'auto') {
    const { expected, example } = VARIABLES.MIGRATION_DATABASE_URL;
    problems.push(
      `MIGRATION_DATABASE_URL: expected ${expected} (for example ${example}), because DATABASE_URL is set and MIGRATE ` +
        'is auto; or leave MIGRATE unset, and run `jeex-persistence migrate up` first',
    );
  }
  return [...problems, ...togetherOnly(values)];
}

/** What an address beyond this machine lacks. */
function exposed(name: 'GRPC_LISTEN' | 'HTTP_LISTEN', values: Partial<Values>): string[] {
  const expected = `${name}: expected a loopback address (for example ${VARIABLES[name].example})`;
  if (!values.AUTH_JWKS) {
    return [`${expected}, since AUTH_JWKS is not set: any caller could then read and write everything`];
  }
  if (!values.TLS_CERT_FILE && values.ALLOW_PLAINTEXT !== true) {
    return [
      `${expected}, since TLS_CERT_FILE is not set: tokens and content would cross the network in the clear; or ` +
        'ALLOW_PLAINTEXT=true, where the network itself encrypts',
    ];
  }
  return [];
}

/** Variables that make sense together alone. */
function togetherOnly(values: Partial<Values>): string[] {
  const problems: string[] = [];
  const needs = (name: Name, other: Name) => {
    if (isSet(values[name]) && !isSet(values[other])) problems.push(`${other}: expected, because ${name} is set`);
  };
  const excludes = (name: Name, other: Name) => {
    if (isSet(values[name]) && isSet(values[other]))
      problems.push(`${name}: expected to be unset, because ${other} is set`);
  };
  needs('AUTH_JWKS', 'AUTH_ISSUER');
  needs('TLS_CERT_FILE', 'TLS_KEY_FILE');
  needs('TLS_KEY_FILE', 'TLS_CERT_FILE');
  needs('TLS_CLIENT_CA_FILE', 'TLS_CERT_FILE');
  needs('TLS_CLIENT_CA_FILE', 'TLS_CLIENT_NAMES');
  needs('TLS_CLIENT_NAMES', 'TLS_CLIENT_CA_FILE');
  excludes('ENCRYPTION_KEYS', 'ENCRYPTION_KEYS_FILE');
  if (values.DATABASE_URL && !values.ENCRYPTION_KEYS && !values.ENCRYPTION_KEYS_FILE) {
    const { expected, example } = VARIABLES.ENCRYPTION_KEYS;
    problems.push(
      `ENCRYPTION_KEYS: expected ${expected} (for example ${example}), because DATABASE_URL is set; or ENCRYPTION_KEYS_FILE`,
    );
  }
  return problems;
}

const isSet = (given: unknown): boolean => given !== undefined && !(Array.isArray(given) && given.length === 0);

const toConfig = (values: Values): Config => ({
  grpcListen: values.GRPC_LISTEN,
  httpListen: values.HTTP_LISTEN,
  healthListen: values.HEALTH_LISTEN ?? null,
  auth: toAuth(values),
  tls: toTls(values),
  allowedOrigins: values.ALLOWED_ORIGINS,
  databaseUrl: withPasswordFile(values.DATABASE_URL, values.DATABASE_PASSWORD_FILE),
  migrationDatabaseUrl: withPasswordFile(values.MIGRATION_DATABASE_URL, values.MIGRATION_DATABASE_PASSWORD_FILE),
  adminDatabaseUrl: values.ADMIN_DATABASE_URL ?? null,
  passwordsDir: values.PASSWORDS_DIR ?? null,
  dataDir: resolve(values.DATA_DIR),
  migrate: values.MIGRATE ?? (values.DATABASE_URL === undefined ? 'auto' : 'check'),
  poolSize: values.POOL_SIZE,
  poolWaitMs: values.POOL_WAIT_MS,
  maxReplicas: values.MAX_REPLICAS,
  pgbouncerAdminUrl: withPasswordFile(values.PGBOUNCER_ADMIN_URL, values.PGBOUNCER_ADMIN_PASSWORD_FILE),
  monitorDatabaseUrl: withPasswordFile(values.MONITOR_DATABASE_URL, values.MONITOR_DATABASE_PASSWORD_FILE),
  listenDatabaseUrl: withPasswordFile(values.LISTEN_DATABASE_URL, values.LISTEN_DATABASE_PASSWORD_FILE),
  monitorIntervalSeconds: values.MONITOR_INTERVAL_SECONDS,
  slowQueryMs: values.SLOW_QUERY_MS,
  alerts: values.ALERTS,
  metricsPublic: values.METRICS_PUBLIC,
  encryptionKeys: toKeys(values),
  retention: {
    payloadDays: values.KEEP_PAYLOADS_DAYS,
    exportDays: values.KEEP_EXPORTS_DAYS,
    changeDays: values.KEEP_CHANGES_DAYS ?? null,
  },
  access: { target: values.ACCESS_LOG ?? null, reads: values.AUDIT_READS, full: values.ACCESS_LOG_FULL },
  shutdownDelaySeconds: values.SHUTDOWN_DELAY_SECONDS,
  shutdownGraceSeconds: values.SHUTDOWN_GRACE_SECONDS,
  logLevel: values.LOG_LEVEL,
});

const toAuth = (values: Values): AuthConfig | null =>
  values.AUTH_JWKS === undefined
    ? null
    : {
        jwks: values.AUTH_JWKS,
        issuer: values.AUTH_ISSUER ?? '',
        audience: values.AUTH_AUDIENCE,
        algorithms: values.AUTH_ALGORITHMS,
      };

const toTls = (values: Values): TlsConfig | null =>
  values.TLS_CERT_FILE === undefined
    ? null
    : {
        certFile: values.TLS_CERT_FILE,
        keyFile: values.TLS_KEY_FILE ?? '',
        clientCaFile: values.TLS_CLIENT_CA_FILE ?? null,
        clientNames: values.TLS_CLIENT_NAMES,
      };

const toKeys = (values: Values): Config['encryptionKeys'] => {
  if (values.ENCRYPTION_KEYS !== undefined) return { text: values.ENCRYPTION_KEYS };
  return values.ENCRYPTION_KEYS_FILE === undefined ? null : { file: values.ENCRYPTION_KEYS_FILE };
};
