import { createPublicKey } from 'node:crypto';
import { createLocalJWKSet, type JWK, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';

/** The public keys in force at one time. */
export interface KeySet {
  readonly size: number;
  /** Finds the key that a token's header names. */
  readonly find: JWTVerifyGetKey;
}

const MAX_KEYS = 100;
const MIN_RSA_BITS = 2048;

/** The members of a JSON Web Key that are secret (RFC 7518, section 6). */
const SECRET_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'];

const Jwk = z.looseObject({ kty: z.string(), use: z.string().optional(), key_ops: z.array(z.string()).optional() });
const Jwks = z.object({ keys: z.array(Jwk).max(MAX_KEYS) });
type Candidate = z.infer<typeof Jwk>;

/**
 * Reads a JSON Web Key Set (RFC 7517). Keys of an unknown kind, for another use, or too weak are passed over.
 * @throws Error when it is none, or holds a secret: whoever can read that could make tokens
 */
export const parseKeySet = (text: string): KeySet => {
  const { keys } = parse(text);
  keys.forEach(refuseSecret);
  const usable = keys.filter(isUsable) as JWK[];
  return { size: usable.length, find: createLocalJWKSet({ keys: usable }) };
};

const parse = (text: string): z.infer<typeof Jwks> => {
  try {
    return Jwks.parse(JSON.parse(text));
  } catch {
    // What a parser says would repeat what it read.
    throw new Error(`it is no JSON Web Key Set: expected {"keys": [...]} with at most ${MAX_KEYS} keys`);
  }
};

const refuseSecret = (key: Candidate, index: number) => {
  if (key.kty !== 'oct' && !SECRET_MEMBERS.some((name) => name in key)) return;
  const kind = key.kty === 'oct' ? 'symmetric' : 'private';
  throw new Error(`keys[${index}] is a ${kind} key: a service that checks tokens needs public keys alone`);
};

const isUsable = (key: Candidate): boolean => {
  const { use = 'sig', key_ops: operations = ['verify'] } = key;
  return use === 'sig' && operations.includes('verify') && isStrong(key);
};

const isStrong = (key: Candidate): boolean => {
  try {
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey({ key, format: 'jwk' });
    if (asymmetricKeyType === 'rsa') return (asymmetricKeyDetails?.modulusLength ?? 0) >= MIN_RSA_BITS;
    return asymmetricKeyType === 'ec' || asymmetricKeyType === 'ed25519';
  } catch {
    return false;
  }
};
