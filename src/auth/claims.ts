import { z } from 'zod';
import { type Caller, SCOPES } from '../rpc/access.ts';
import { UUID } from '../rpc/entry.ts';
import { type Problem, refused } from './refused.ts';

/** How far clocks may be apart, in seconds. */
export const LEEWAY_SECONDS = 30;

/** Letters, marks, numbers, signs and blanks, with something other than blanks at both ends. */
export const CALLER_NAME = /^(?!\s)[^\p{C}\p{Zl}\p{Zp}]{1,255}(?<!\s)$/u;

const Ids = z
  .array(z.string().regex(UUID).toLowerCase())
  .transform((ids): ReadonlySet<string> => new Set(ids))
  .optional();

/** The claims that say who a caller is; issuer, audience and times are the verifier's matter. */
const Claims = z.object({
  sub: z.string().regex(CALLER_NAME),
  exp: z.number(),
  iat: z.number().optional(),
  scope: z.string().default(''),
  actors: Ids,
  projects: Ids,
});

/**
 * Who calls, by the claims of a verified token. Scopes that this service does not know are left out.
 * @throws Refusal UNAUTHENTICATED for a claim that is missing or not what it must be
 */
export const callerOf = (payload: object): Caller => {
  const { success, data, error } = Claims.safeParse(payload);
  if (!success) throw refused(`claim_${String(error.issues[0]?.path[0])}` as Problem);
  const { sub, exp, iat = 0, scope, actors = null, projects = null } = data;
  if (iat > Date.now() / 1000 + LEEWAY_SECONDS) throw refused('not_yet');
  const scopes: readonly string[] = scope.split(' ');
  return {
    name: sub,
    scopes: new Set(SCOPES.filter((known) => scopes.includes(known))),
    actors,
    projects,
    expires: (exp + LEEWAY_SECONDS) * 1000,
  };
};
