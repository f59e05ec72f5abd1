import { type DescMethod, getOption } from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { Access, access } from '../gen/jeex/persistence/v1/access_pb.js';
import { Refusal } from '../refusal.ts';

/** What a caller may do at all; what an actor may do in a project is its role's matter. */
export type Scope = 'read' | 'write' | 'system' | 'monitor' | 'admin';

export const SCOPES: readonly Scope[] = ['read', 'write', 'system', 'monitor', 'admin'];

/** Who calls: the answer of authentication. */
export interface Caller {
  /** The calling service's name. */
  readonly name: string;
  readonly scopes: ReadonlySet<string>;
}

/** Whether a method changes anything; the reads carry `idempotency_level = NO_SIDE_EFFECTS`. */
export const isMutation = (method: DescMethod): boolean =>
  method.idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;

type AccessCheck = (caller: Caller, actor: string | null) => void;

const demand = (caller: Caller, scope: Scope) => {
  if (caller.scopes.has(scope)) return;
  throw new Refusal('SCOPE_REQUIRED', `the caller lacks the scope ${scope}`, { metadata: { scope } });
};

const withoutActor = (actor: string | null, scope: Scope) => {
  if (actor === null) return;
  const message = `this call is for the scope ${scope} alone: send no x-actor-id`;
  throw new Refusal('SCOPE_REQUIRED', message, { metadata: { scope } });
};

/**
 * Compiles what a method's `access` option asks for and no database is needed to see: scopes, and where no actor may be named.
 * Roles, ACTOR_UNKNOWN and "the user itself" are decided by the method's own statement.
 * Throws, at start, for a method without the option. The returned function throws SCOPE_REQUIRED.
 */
export const compileAccess = (method: DescMethod): AccessCheck => {
  const kind: Scope = isMutation(method) ? 'write' : 'read';
  switch (getOption(method, access)) {
    case Access.UNSPECIFIED:
      throw new Error(`${method.parent.typeName}.${method.name} does not say who may call it`);
    case Access.ANYONE:
      return () => {};
    case Access.MONITOR:
      return (caller) => demand(caller, 'monitor');
    case Access.ADMIN:
      return (caller, actor) => {
        withoutActor(actor, 'admin');
        demand(caller, 'admin');
      };
    case Access.SYSTEM:
      return (caller, actor) => {
        withoutActor(actor, 'system');
        demand(caller, 'system');
        demand(caller, kind);
      };
    default:
      return (caller, actor) => {
        demand(caller, kind);
        if (actor === null) demand(caller, 'system');
      };
  }
};
