import { type DescMethod, getOption } from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { Access, access } from '../gen/jeex/persistence/v1/access_pb.js';
import { Refusal, refusalOf } from '../refusal.ts';

/** What a caller may do at all; what an actor may do in a project is its role's matter. */
export type Scope = 'read' | 'write' | 'system' | 'monitor' | 'admin';

export const SCOPES: readonly Scope[] = ['read', 'write', 'system', 'monitor', 'admin'];

/** Who calls: the answer of authentication. */
export interface Caller {
  /** The calling service's name: one printable line of at most 255 characters. */
  readonly name: string;
  readonly scopes: ReadonlySet<string>;
  /** The users it may act for, by id; null: any, and the system too. */
  readonly actors: ReadonlySet<string> | null;
  /** The projects it may touch, by id; null: any. */
  readonly projects: ReadonlySet<string> | null;
  /** When its token ends, in milliseconds since the epoch; null: never. */
  readonly expires: number | null;
}

/** Whether a method changes anything; the reads carry `idempotency_level = NO_SIDE_EFFECTS`. */
export const isMutation = (method: DescMethod): boolean =>
  method.idempotency !== MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;

type AccessCheck = (caller: Caller, actor: string | null) => void;

const scopeRequired = (message: string, metadata: Readonly<Record<string, string>>): Refusal =>
  new Refusal('SCOPE_REQUIRED', message, { metadata });

const demand = (caller: Caller, scope: Scope) => {
  if (caller.scopes.has(scope)) return;
  throw scopeRequired(`the caller lacks the scope ${scope}`, { scope });
};

const withoutActor = (actor: string | null, scope: Scope) => {
  if (actor === null) return;
  throw scopeRequired(`this call is for the scope ${scope} alone: send no x-actor-id`, { scope });
};

const notCovered = (): Refusal =>
  scopeRequired("the token's claim actors does not cover whom this call is made for", { claim: 'actors' });

/** A token for some users covers neither others nor the system, whatever its scopes. */
const coveredActor = ({ actors }: Caller, actor: string | null) => {
  if (actors !== null && (actor === null || !actors.has(actor))) throw notCovered();
};

/** The same where nothing is done for anybody: an actor may be left out, and must be covered when it is named. */
const coveredIfNamed = ({ actors }: Caller, actor: string | null) => {
  if (actors !== null && actor !== null && !actors.has(actor)) throw notCovered();
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
      return coveredIfNamed;
    case Access.MONITOR:
      return (caller, actor) => {
        demand(caller, 'monitor');
        coveredIfNamed(caller, actor);
      };
    case Access.ADMIN:
      return (caller, actor) => {
        withoutActor(actor, 'admin');
        demand(caller, 'admin');
        coveredActor(caller, actor);
      };
    case Access.SYSTEM:
      return (caller, actor) => {
        withoutActor(actor, 'system');
        demand(caller, 'system');
        demand(caller, kind);
        coveredActor(caller, actor);
      };
    default:
      return (caller, actor) => {
        demand(caller, kind);
        if (actor === null) demand(caller, 'system');
        coveredActor(caller, actor);
      };
  }
};

/**
 * Compiles whether a caller's token covers the projects of a request. One for some projects reaches nothing else: what is
 * about no project is SCOPE_REQUIRED, another project PROJECT_NOT_FOUND as if it did not exist.
 */
export const compileCover = (method: DescMethod): ((caller: Caller, projects: readonly string[]) => void) => {
  const open = [Access.ANYONE, Access.MONITOR].includes(getOption(method, access));
  // As the watches themselves refuse: who watches many is told which.
  const isWatch = method.methodKind === 'server_streaming' && method.parent.name === 'ChangeService';
  return ({ projects: covered }, projects) => {
    if (covered === null || open) return;
    if (projects.length === 0) {
      throw scopeRequired("the token's claim projects does not cover a call about no project", { claim: 'projects' });
    }
    const foreign = projects.find((project) => !covered.has(project));
    if (foreign !== undefined) throw refusalOf('PROJECT_NOT_FOUND', isWatch ? { project_id: foreign } : {});
  };
};
