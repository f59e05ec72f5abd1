import { createHmac } from 'node:crypto';
import type { JWK, JWTPayload } from 'jose';
import { keySetOf, makeKey, mint } from '../../auth/development.ts';
import { SCOPES } from '../../rpc/access.ts';

/** What tokens are made with that the service accepts. */
export interface Signer {
  /** Private; its public half is in the service's key set. */
  readonly key: JWK;
  readonly issuer: string;
  readonly audience: string;
}

const CALLER = 'isolation-audit';
const LIFE_SECONDS = 3600;

const now = (): number => Math.floor(Date.now() / 1000);

const claimsOf = ({ issuer, audience }: Signer, changes: JWTPayload = {}): JWTPayload => ({
  iss: issuer,
  aud: audience,
  sub: CALLER,
  scope: SCOPES.join(' '),
  iat: now(),
  exp: now() + LIFE_SECONDS,
  ...changes,
});

/** A good token with every scope. @param caller the service it is for; another one is another caller */
export const goodToken = (signer: Signer, caller = CALLER): Promise<string> =>
  mint(signer.key, claimsOf(signer, { sub: caller }));

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token without a signature, as a careless verifier takes it. */
const unsigned = (signer: Signer): string => `${part({ alg: 'none', typ: 'JWT' })}.${part(claimsOf(signer))}.`;

/** Signed with the public key as if it were a secret, which a verifier that trusts the header's `alg` takes. */
const confused = (signer: Signer): string => {
  const text = `${part({ alg: 'HS256', kid: signer.key.kid })}.${part(claimsOf(signer))}`;
  const secret = JSON.stringify(keySetOf([signer.key]));
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
};

/** Says more than what was signed. */
const altered = async (signer: Signer): Promise<string> => {
  const [header, , signature] = (await mint(signer.key, claimsOf(signer, { scope: 'read' }))).split('.');
  return `${header}.${part(claimsOf(signer))}.${signature}`;
};

const byOtherKey = async (signer: Signer): Promise<string> => {
  const { kid } = signer.key;
  return mint({ ...(await makeKey()), ...(kid !== undefined && { kid }) }, claimsOf(signer));
};

/** Tokens that nobody may be let in with, by what is wrong with them; null: none at all. */
export const forgedTokens = async (signer: Signer): Promise<ReadonlyMap<string, string | null>> =>
  new Map([
    ['no token', null],
    ['garbage', 'garbage'],
    ['alg none', unsigned(signer)],
    ['the public key as a secret', confused(signer)],
    ['a wrong key', await byOtherKey(signer)],
    ['an altered claim', await altered(signer)],
    ['expired', await mint(signer.key, claimsOf(signer, { iat: now() - 7200, exp: now() - 3600 }))],
    ['not valid yet', await mint(signer.key, claimsOf(signer, { nbf: now() + 3600 }))],
    ['another audience', await mint(signer.key, claimsOf(signer, { aud: 'another-service' }))],
    ['another issuer', await mint(signer.key, claimsOf(signer, { iss: 'https://another.invalid' }))],
  ]);
