import { errors, type JWTVerifyOptions, jwtVerify } from 'jose';
import type { Logger } from 'pino';
import type { AuthConfig } from '../config.ts';
import { Refusal } from '../refusal.ts';
import type { Caller } from '../rpc/access.ts';
import type { Authenticate } from '../rpc/pipeline.ts';
import { CallerCache } from './caller-cache.ts';
import { callerOf, LEEWAY_SECONDS } from './claims.ts';
import { type KeySource, keySource } from './key-source.ts';
import { openKeys } from './keys.ts';
import { type Problem, refused } from './refused.ts';

export interface Authenticator {
  /** Answers at once for a token seen before, as verifying one takes longer than the rest of a call's way in. */
  readonly authenticate: Authenticate;
  /** Reads no keys from now on. */
  stop(): void;
}

const MAX_HEADER_LENGTH = 'Bearer '.length + 8 * 1024;
/** Callers that are remembered, of some 500 bytes each. */
const CACHED_CALLERS = 5_000;

const BEARER = /^bearer +([\w~+/.-]+=*)$/i;

/**
 * Checks bearer tokens: JSON Web Tokens signed with one of the source's keys.
 * @throws Error when the keys cannot be read
 */
export const startAuthenticator = async (
  auth: AuthConfig,
  log: Logger,
  source: KeySource = keySource(auth.jwks),
): Promise<Authenticator> => {
  const keys = await openKeys(source, log);
  const options: JWTVerifyOptions = {
    issuer: auth.issuer,
    audience: [...auth.audience],
    algorithms: [...auth.algorithms],
    clockTolerance: LEEWAY_SECONDS,
  };

  // Callers are remembered with the keys their tokens were verified with, and forgotten with them.
  let held = { keySet: keys.current, callers: new CallerCache(CACHED_CALLERS) };
  const holding = () => {
    if (held.keySet !== keys.current) {
      held = { keySet: keys.current, callers: new CallerCache(CACHED_CALLERS) };
    }
    return held;
  };

  /** Null when none of the keys in force could have signed the token. */
  const check = async (token: string): Promise<Caller | null> => {
    const { keySet, callers } = holding();
    try {
      const { payload } = await jwtVerify(token, keySet.find, options);
      const caller = callerOf(payload);
      callers.set(token, caller);
      return caller;
    } catch (error) {
      if (error instanceof errors.JWKSNoMatchingKey) return null;
      throw error instanceof Refusal ? error : refused(problemOf(error));
    }
  };

  const verify = async (token: string): Promise<Caller> => {
    const caller = await check(token);
    if (caller) return caller;
    await keys.refresh();
    const found = await check(token);
    if (!found) throw refused('unknown_key');
    return found;
  };

  const authenticate: Authenticate = (header) => {
    const token = tokenOf(header('authorization'));
    return holding().callers.get(token) ?? verify(token);
  };
  return { authenticate, stop: () => keys.stop() };
};

const tokenOf = (header: string | undefined): string => {
  if (header === undefined) throw refused('missing');
  if (header.length > MAX_HEADER_LENGTH) throw refused('too_long');
  const token = BEARER.exec(header)?.[1];
  if (token === undefined) throw refused('not_bearer');
  return token;
};

const CLAIMS: Readonly<Record<string, Problem>> = { iss: 'issuer', aud: 'audience', nbf: 'not_yet' };

/** What was wrong with a token, by the error of the library; what is not foreseen refuses it too. */
const problemOf = (error: unknown): Problem => {
  if (error instanceof errors.JWTExpired) return 'expired';
  if (error instanceof errors.JWTClaimValidationFailed) {
    const { claim, reason } = error;
    return (reason === 'invalid' ? undefined : CLAIMS[claim]) ?? (`claim_${claim}` as Problem);
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'signature';
  if (error instanceof errors.JOSEAlgNotAllowed) return 'algorithm';
  if (error instanceof errors.JWKSMultipleMatchingKeys) return 'unnamed_key';
  return 'malformed';
};
