import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { type JWK, type JWTPayload, SignJWT } from 'jose';
import { type Authenticator, startAuthenticator } from '../../src/auth/authenticator.ts';
import { keySetOf, makeKey, mint } from '../../src/auth/development.ts';
import { type KeySource, keySource } from '../../src/auth/key-source.ts';
import type { AuthConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import { Refusal } from '../../src/refusal.ts';
import { type Caller, SCOPES } from '../../src/rpc/access.ts';

const ISSUER = 'https://issuer.example';
const AUDIENCE = 'jeex-persistence';

/** Seconds since 1970. */
export const now = (): number => Math.floor(Date.now() / 1000);

/** The claims of a token that may do everything for an hour. */
const CLAIMS = () => ({ iss: ISSUER, aud: AUDIENCE, sub: 'orchestrator', scope: SCOPES.join(' '), exp: now() + 3600 });

export interface Issuer {
  readonly key: JWK;
  readonly jwksFile: string;
  readonly auth: AuthConfig;
  /** For a service that takes its tokens. */
  readonly env: Readonly<Record<string, string>>;
  /** A token that may do everything, but for these claims; undefined takes one away. */
  token(claims?: JWTPayload, key?: JWK): Promise<string>;
  /** Replaces the keys that verify its tokens. */
  publish(...keys: readonly JWK[]): void;
}

/** Somebody who makes tokens, with a key set in a file, until the file's tests have ended. */
export const useIssuer = async (): Promise<Issuer> => {
  const folder = mkdtempSync(join(tmpdir(), 'jeex-issuer-'));
  after(() => rmSync(folder, { recursive: true }));
  const jwksFile = join(folder, 'jwks.json');
  const publish = (...keys: readonly JWK[]) => writeFileSync(jwksFile, keySetOf(keys));
  const own = await makeKey();
  publish(own);
  return {
    key: own,
    jwksFile,
    auth: { jwks: jwksFile, issuer: ISSUER, audience: ['another', AUDIENCE], algorithms: ['EdDSA', 'ES256'] },
    env: { AUTH_JWKS: jwksFile, AUTH_ISSUER: ISSUER },
    token: (claims = {}, key = own) => mint(key, { ...CLAIMS(), ...claims }),
    publish,
  };
};

const base64 = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Signed by HMAC with what everybody knows: the public key, as the key set has it. */
const signedWithPublicKey = ({ key }: Issuer): Promise<string> =>
  new SignJWT(CLAIMS())
    .setProtectedHeader({ alg: 'HS256', kid: key.kid ?? '' })
    .sign(Buffer.from(key.x ?? '', 'base64url'));

/** The claims of one token with the signature of another. */
const altered = async (issuer: Issuer): Promise<string> => {
  const [header, , signature] = (await issuer.token({ scope: 'read' })).split('.');
  return [header, base64(CLAIMS()), signature].join('.');
};

/** Every way not to be let in: what the header `authorization` holds, and what the caller is told. */
export const forgeries = async (issuer: Issuer): Promise<Readonly<Record<string, [string | undefined, RegExp]>>> => {
  const { key } = issuer;
  const good = await issuer.token();
  const bearer = async (claims: JWTPayload, signer?: JWK) => `Bearer ${await issuer.token(claims, signer)}`;
  const unsigned = `${base64({ alg: 'none', kid: key.kid })}.${base64(CLAIMS())}.`;
  return {
    'no token': [undefined, /send the header/],
    'an empty header': ['', /send the header|one token/],
    'no scheme': [good, /one token/],
    'another scheme': [`Basic ${Buffer.from('a:b').toString('base64')}`, /one token/],
    'two tokens': [`Bearer ${good}, Bearer ${good}`, /one token/],
    garbage: ['Bearer garbage', /compact form/],
    'garbage in three parts': ['Bearer a.b.c', /compact form/],
    'a token too long': [`Bearer ${'a'.repeat(9000)}`, /8 KiB/],
    expired: [await bearer({ exp: now() - 31 }), /expired/],
    'without an end': [await bearer({ exp: undefined }), /exp/],
    'not yet valid': [await bearer({ nbf: now() + 120 }), /not valid yet/],
    'from the future': [await bearer({ iat: now() + 120 }), /not valid yet/],
    'of a wrong key with the right name': [await bearer({}, { ...(await makeKey()), kid: key.kid ?? '' }), /signature/],
    'of an unknown key': [await bearer({}, await makeKey()), /not \(or no longer\)/],
    'for another audience': [await bearer({ aud: 'jeex' }), /another service/],
    'for no audience': [await bearer({ aud: undefined }), /another service/],
    'of another issuer': [await bearer({ iss: `${ISSUER}/` }), /another issuer/],
    'alg: none': [`Bearer ${unsigned}`, /does not accept/],
    'HS256 with the public key': [`Bearer ${await signedWithPublicKey(issuer)}`, /does not accept/],
    'altered claims': [`Bearer ${await altered(issuer)}`, /signature/],
    'of nobody': [await bearer({ sub: undefined }), /sub/],
  };
};

/** A log that remembers its lines. */
export const newLog = () => {
  const lines: Record<string, unknown>[] = [];
  return { lines, log: createLog('info', { write: (line: string) => lines.push(JSON.parse(line)) }) };
};

/** Checks tokens until the file's tests have ended, at another pace than a service's where one is given. */
export const useAuthenticator = async ({ auth }: Issuer, pace: Partial<KeySource>, jwks = auth.jwks) => {
  const { log, lines } = newLog();
  const started = await startAuthenticator({ ...auth, jwks }, log, { ...keySource(jwks), ...pace });
  after(() => started.stop());
  return { ...started, lines };
};

/** Who calls with a token; or the refusal's message. */
export const ask = async ({ authenticate }: Authenticator, token: string): Promise<Caller | string> => {
  try {
    return await authenticate(() => `Bearer ${token}`);
  } catch (error) {
    assert.ok(error instanceof Refusal && error.reason === 'UNAUTHENTICATED', String(error));
    return error.message;
  }
};

/** For a source that is read at its tokens' asking alone. */
export const RARELY = { everyMs: 3_600_000 };
