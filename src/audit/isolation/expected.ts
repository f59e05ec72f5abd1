import { type DescMethod, getOption } from '@bufbuild/protobuf';
import { Access, access } from '../../gen/jeex/persistence/v1/access_pb.js';
import type { Reason } from '../../refusal.ts';
import { isMutation, type Scope } from '../../rpc/access.ts';

/**
 * Where the actor of a call stands towards what the call is about: the project, or for calls about a user a project of that
 * user's. `none`: no actor is named; `unknown`: the one named is no user.
 */
export const STANDINGS = ['none', 'unknown', 'stranger', 'viewer', 'editor', 'owner'] as const;
export type Standing = (typeof STANDINGS)[number];

export interface Asker {
  /** Of the caller. */
  readonly scopes: ReadonlySet<string>;
  readonly standing: Standing;
  /** Whether the call is about the actor itself, as a user or as a member. */
  readonly self?: boolean;
  /** Whether the project is PUBLIC_READ. */
  readonly publicRead?: boolean;
}

/** What an RPC answers to somebody: whether it lets in, or why not. */
export type Entrance = 'OK' | Extract<Reason, `${string}_REQUIRED` | `${string}_UNKNOWN` | `${string}_NOT_FOUND`>;

const RANK: Readonly<Record<string, number>> = { viewer: 1, editor: 2, owner: 3 };
const LEAST = new Map<Access, number>([
  [Access.READER, 1],
  [Access.MEMBER, 1],
  [Access.EDITOR, 2],
  [Access.OWNER, 3],
  [Access.OWNER_OR_SELF, 3],
]);

/** Whether the actor's role in a project decides who may call. */
export const isByRole = (method: DescMethod): boolean => LEAST.has(getOption(method, access));

const towardsUser = (who: Access, { standing, self }: Asker): Entrance => {
  if (self) return 'OK';
  if (standing === 'stranger') return 'USER_NOT_FOUND';
  return who === Access.FELLOW ? 'OK' : 'ROLE_REQUIRED';
};

const towardsProject = (who: Access, { standing, self, publicRead }: Asker): Entrance => {
  const least = LEAST.get(who);
  if (least === undefined) throw new Error(`what access ${Access[who]} asks for is not known here`);
  if (standing === 'stranger' && !publicRead) return 'PROJECT_NOT_FOUND';
  if (standing === 'stranger') return who === Access.READER ? 'OK' : 'ROLE_REQUIRED';
  if (who === Access.OWNER_OR_SELF && self) return 'OK';
  return (RANK[standing] ?? 0) >= least ? 'OK' : 'ROLE_REQUIRED';
};

const scopesOf = (who: Access, method: DescMethod, standing: Standing): readonly Scope[] => {
  const kind: Scope = isMutation(method) ? 'write' : 'read';
  if (who === Access.ANYONE) return [];
  if (who === Access.MONITOR) return ['monitor'];
  if (who === Access.ADMIN) return ['admin'];
  return who === Access.SYSTEM || standing === 'none' ? ['system', kind] : [kind];
};

/**
 * Whom an RPC lets in, by its `access` option alone: the contract's column "who", for every RPC there is and will be.
 * @throws Error for an access that is not known here
 */
export const expectedEntrance = (method: DescMethod, asker: Asker): Entrance => {
  const who = getOption(method, access);
  const { scopes, standing } = asker;
  if ((who === Access.ADMIN || who === Access.SYSTEM) && standing !== 'none') return 'SCOPE_REQUIRED';
  if (!scopesOf(who, method, standing).every((scope) => scopes.has(scope))) return 'SCOPE_REQUIRED';
  if (standing === 'none') return 'OK';
  if (standing === 'unknown') return 'ACTOR_UNKNOWN';
  if (who === Access.ANYONE || who === Access.MONITOR || who === Access.ACTOR) return 'OK';
  return who === Access.SELF || who === Access.FELLOW ? towardsUser(who, asker) : towardsProject(who, asker);
};
