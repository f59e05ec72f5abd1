import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
  type JWTPayload,
  SignJWT,
} from 'jose';
import { makeFolder } from '../db/embedded-home.ts';

/** By the curve, for a key that does not say what it signs with. */
const ALGORITHMS: Readonly<Record<string, string>> = {
  Ed25519: 'EdDSA',
  'P-256': 'ES256',
  'P-384': 'ES384',
  'P-521': 'ES512',
};

/** A new private key (Ed25519); its id is its thumbprint. */
export const makeKey = async (): Promise<JWK> => {
  const { privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  const key = await exportJWK(privateKey);
  return { ...key, alg: 'EdDSA', use: 'sig', kid: await calculateJwkThumbprint(key) };
};

/** The key set, as JSON, that verifies what these private keys sign. */
export const keySetOf = (keys: readonly JWK[]): string =>
  JSON.stringify({
    keys: keys.map(({ kty, crv, x, y, n, e, alg, use, kid }) => ({ kty, crv, x, y, n, e, alg, use, kid })),
  });

/**
 * Makes a token.
 * @param key the private key that signs it
 * @param claims as they are to stand in it: iss, aud, sub, exp, scope, …
 * @throws Error for a key that cannot sign
 */
export const mint = async (key: JWK, claims: JWTPayload): Promise<string> => {
  const alg = key.alg ?? ALGORITHMS[key.crv ?? ''] ?? 'RS256';
  const header = key.kid === undefined ? { alg } : { alg, kid: key.kid };
  return await new SignJWT(claims).setProtectedHeader(header).sign(await importJWK(key, alg));
};

/** A private key from a file. @throws Error when there is none in it */
export const readKey = (path: string): JWK => {
  const key = parse(readFileSync(path, 'utf8'));
  if (typeof key === 'object' && key !== null && 'kty' in key && 'd' in key) return key as JWK;
  throw new Error(`${path} holds no private key (a single JSON Web Key)`);
};

/** What a parser says would repeat what it read. */
const parse = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};

/** Whether a file holds the key set of a key. */
const verifies = (jwksFile: string, key: JWK): boolean =>
  existsSync(jwksFile) && readFileSync(jwksFile, 'utf8') === keySetOf([key]);

/** The key that signs tokens for development, and the file with the key set that verifies them; made when they are not there. */
export const developmentKey = async (dataDir: string): Promise<{ key: JWK; jwksFile: string }> => {
  const folder = join(dataDir, 'auth');
  const keyFile = join(folder, 'key.json');
  const jwksFile = join(folder, 'jwks.json');
  if (!existsSync(keyFile)) {
    // As the embedded database would make it, which lives there too.
    makeFolder(dataDir);
    makeFolder(folder);
    writeFileSync(keyFile, JSON.stringify(await makeKey()), { mode: 0o600, flag: 'wx' });
  }
  const key = readKey(keyFile);
  // Another key may have been put there since.
  if (!verifies(jwksFile, key)) writeFileSync(jwksFile, keySetOf([key]));
  return { key, jwksFile };
};
