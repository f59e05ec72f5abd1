import { Refusal } from '../refusal.ts';

/** Everything that can be wrong with a token, and what its caller is told; never anything of the token itself. */
const PROBLEMS = {
  missing: 'this service needs a token: send the header authorization: Bearer <token>',
  not_bearer: 'the header authorization must hold one token and nothing else: Bearer <token>',
  too_long: 'the token is longer than 8 KiB; get one with fewer claims',
  malformed: 'the token is no signed JSON Web Token in compact form; send it as its issuer made it',
  algorithm: 'the token is signed in a way this service does not accept; ask its operator for the algorithms it does',
  unknown_key: "the token is signed with a key that is not (or no longer) among the issuer's; get a new token",
  unnamed_key: 'several keys could have signed the token; it must name its own in the header kid',
  signature: "the token's signature is not valid; send it as its issuer made it",
  expired: 'the token has expired; get a new one',
  not_yet: "the token is not valid yet; wait until its time (nbf, iat) comes, or set the issuer's clock",
  issuer: "the token is of another issuer (iss); get one from this service's",
  audience: 'the token is for another service (aud); get one for this service',
  claim_exp: "the token's claim exp must be there: when it ends, in seconds since 1970",
  claim_iat: "the token's claim iat must be seconds since 1970",
  claim_nbf: "the token's claim nbf must be seconds since 1970",
  claim_sub: "the token's claim sub must name the caller: 1 to 255 printable characters on one line",
  claim_scope: "the token's claim scope must be words separated by blanks",
  claim_actors: "the token's claim actors must be a list of UUIDs",
  claim_projects: "the token's claim projects must be a list of UUIDs",
} as const;

export type Problem = keyof typeof PROBLEMS;

/** What the operator's log has of a refused token: a word of the list above. */
class TokenRefused extends Error {
  override readonly name = 'TokenRefused';

  constructor(problem: Problem) {
    super(problem);
    // Anybody can bring this about, and where it was thrown says nothing.
    delete this.stack;
  }
}

/** The refusal of a call for its token. */
export const refused = (problem: Problem): Refusal =>
  new Refusal('UNAUTHENTICATED', PROBLEMS[problem], { cause: new TokenRefused(problem) });
