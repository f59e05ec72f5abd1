import { relative } from 'node:path';
import type { JWTPayload } from 'jose';
import { CALLER_NAME } from '../auth/claims.ts';
import { developmentKey, mint, readKey } from '../auth/development.ts';
import { type AuthConfig, type Config, loadConfig } from '../config.ts';
import { SCOPES } from '../rpc/access.ts';
import { UUID } from '../rpc/entry.ts';
import { formatAddress } from '../rpc/listen.ts';
import { VARIABLES } from '../variables.ts';

/** As given on the command line. */
export interface TokenOptions {
  readonly sub: string;
  readonly scope: string;
  readonly actors?: string;
  readonly projects?: string;
  readonly ttl: string;
  readonly key?: string;
  readonly json?: boolean;
}

/** Ends the command for its wrong use. */
type Wrong = (message: string) => never;

const ISSUER = 'jeex-development';
const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };
const MAX_TTL_SECONDS = 365 * 86_400;

/** Prints a token alone, and on standard error how to use it. @throws Error for a key that cannot be read or cannot sign */
export async function printToken(options: TokenOptions, wrong: Wrong): Promise<void> {
  const grant = readGrant(options, wrong);
  const now = Math.floor(Date.now() / 1000);
  const exp = now + readTtl(options.ttl, wrong);
  const { config, auth } = readConfig();
  const { key, jwksFile } = options.key
    ? { key: readKey(options.key), jwksFile: auth.jwks }
    : await developmentKey(config.dataDir);
  const [aud] = auth.audience;
  const token = await mint(key, { iss: auth.issuer, aud, iat: now, exp, ...grant } as JWTPayload);
  const expires = new Date(exp * 1000).toISOString();
  if (options.json) {
    print(process.stdout, JSON.stringify({ token, expires, issuer: auth.issuer, audience: aud, jwks: jwksFile }));
    return;
  }
  print(process.stdout, token);
  print(process.stderr, `\n${describe(config, { ...auth, jwks: shown(jwksFile) }, `${grant.sub} until ${expires}`)}`);
}

/** The configuration of a service that takes these tokens, whether or not one is configured to. */
export const readConfig = (): { config: Config; auth: AuthConfig } => {
  const env = { ...process.env };
  env.AUTH_JWKS ||= 'KEY_SET';
  env.AUTH_ISSUER ||= ISSUER;
  const config = loadConfig(env, 'command');
  return { config, auth: config.auth as AuthConfig };
};

/** The claims that say who calls, and what it may do. */
const readGrant = ({ sub, scope, actors, projects }: TokenOptions, wrong: Wrong) => {
  if (!CALLER_NAME.test(sub)) wrong('--sub: expected 1 to 255 printable characters on one line, as in orchestrator');
  const scopes = scope.split(/[\s,]+/).filter((word) => word !== '');
  const unknown = scopes.find((word) => !(SCOPES as readonly string[]).includes(word));
  if (unknown !== undefined) wrong(`--scope: there is no scope ${unknown}; expected some of ${SCOPES.join(' ')}`);
  return {
    sub,
    scope: scopes.join(' '),
    ...(actors !== undefined && { actors: readIds('--actors', actors, wrong) }),
    ...(projects !== undefined && { projects: readIds('--projects', projects, wrong) }),
  };
};

const readIds = (option: string, text: string, wrong: Wrong): string[] => {
  const ids = text.split(',').map((id) => id.trim());
  if (!ids.every((id) => UUID.test(id))) wrong(`${option}: expected UUIDs separated by commas`);
  return ids;
};

const readTtl = (text: string, wrong: Wrong): number => {
  const [, count, unit] = /^([1-9]\d{0,8})([smhd])$/.exec(text) ?? [];
  const seconds = Number(count) * (UNITS[unit ?? ''] ?? Number.NaN);
  return seconds <= MAX_TTL_SECONDS
    ? seconds
    : wrong('--ttl: expected a time up to 365d, such as 30s, 15m, 12h or 30d');
};

const describe = (config: Config, { jwks, issuer, audience }: AuthConfig, what: string): string => {
  const path = 'jeex.persistence.v1.DatabaseService/GetServerInfo';
  const asked = audience.join() === VARIABLES.AUTH_AUDIENCE.schema.parse(undefined).join();
  return `That is a token for ${what}.
A service that takes it:
  AUTH_JWKS=${jwks} AUTH_ISSUER=${issuer}${asked ? '' : ` AUTH_AUDIENCE=${audience.join()}`} npm start
Calls with it, kept by TOKEN=$(npm run --silent token -- …):
  curl -H "authorization: Bearer $TOKEN" --json '{}' http://${formatAddress(config.httpListen)}/${path}
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" ${formatAddress(config.grpcListen)} ${path}`;
};

/** A path as one would type it: from here when it lies below, in quotes when it needs them. */
const shown = (path: string): string => {
  const near = relative('', path);
  const text = near.startsWith('..') ? path : near;
  return /^[\w./:@~-]+$/.test(text) ? text : `'${text}'`;
};

const print = (stream: NodeJS.WriteStream, text: string): void => void stream.write(`${text}\n`);
