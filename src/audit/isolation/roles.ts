import { randomUUID } from 'node:crypto';
import type { DescMethod } from '@bufbuild/protobuf';
import { ProjectService } from '../../gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../../gen/jeex/persistence/v1/user_service_pb.js';
import { isMutation } from '../../rpc/access.ts';
import type { Check, Finding } from './check.ts';
import type { Identity } from './door.ts';
import { expectedEntrance, STANDINGS, type Standing } from './expected.ts';
import { type Facts, makeRequest } from './requests.ts';
import { isForNobody, keyOf, type Service } from './service.ts';
import { each, newProject, type World } from './world.ts';

/** Refusals for the state of things, which only who was let in can get. */
const INSIDE = new Set([
  'EMAIL_TAKEN',
  'ETAG_MISMATCH',
  'VERSION_CONFLICT',
  'ILLEGAL_TRANSITION',
  'LAST_OWNER',
  'LEASE_LOST',
  'EXPORT_NOT_READY',
]);

const identityOf = (world: World, standing: Standing): Identity => {
  if (standing === 'none') return {};
  return { actor: standing === 'unknown' ? randomUUID() : world[standing] };
};

/** Calls about a user are about the owner, those about a member about the viewer. */
const subjectOf = (method: DescMethod, world: World): string =>
  method.parent.typeName === UserService.typeName ? world.owner : world.viewer;

export interface RoleOptions {
  /** Whether the service serves nobody but the audit, so that it may claim whatever there is to claim. */
  readonly exclusive: boolean;
}

/** A mutation of the system that can be held to nothing of the audit's: it would take other people's work. */
const isUnbounded = (method: DescMethod, world: World): boolean =>
  isMutation(method) && isForNobody(method) && makeRequest(method, world.facts).used.size === 0;

/** What a call is about. One that changes the project itself, and is let in, gets a project of its own. */
export const factsFor = async (
  { door }: Service,
  method: DescMethod,
  world: World,
  identity: Identity,
  letIn = true,
): Promise<Facts> => {
  const facts = { ...world.facts, user: subjectOf(method, world), creator: identity.actor ?? world.owner };
  const spent = letIn && method.parent.typeName === ProjectService.typeName && isMutation(method);
  return spent ? { ...facts, project: await newProject(door, world) } : facts;
};

const admitted = (outcome: string): string => (INSIDE.has(outcome) ? 'OK' : outcome);

const matrix = async (service: Service, { exclusive }: RoleOptions): Promise<Finding> => {
  const { a: world } = await service.pair();
  const faults: string[] = [];
  const left: string[] = [];
  const ask = async (method: DescMethod, standing: Standing): Promise<void> => {
    const identity = identityOf(world, standing);
    const self = identity.actor === subjectOf(method, world);
    const must = expectedEntrance(method, { scopes: service.scopes, standing, self });
    if (must === 'OK' && !exclusive && isUnbounded(method, world)) {
      left.push(keyOf(method));
      return;
    }
    const facts = await factsFor(service, method, world, identity, must === 'OK');
    const { outcome } = await service.door.call(method, makeRequest(method, facts).message, identity);
    if (admitted(outcome) !== must) faults.push(`${keyOf(method)} answers ${standing}: ${outcome}, not ${must}`);
  };
  await each(service.methods, async (method) => {
    for (const standing of STANDINGS) await ask(method, standing);
  });
  const without = left.length > 0 ? `; not called, since it takes others' work: ${left.join(', ')}` : '';
  return { seen: `${service.methods.length} RPCs × ${STANDINGS.length} actors${without}`, faults };
};

/** Every RPC for every actor, against what the contract's `access` option says. */
export const roleChecks = (service: Service, options: RoleOptions): readonly Check[] => [
  {
    group: 'roles',
    name: 'every RPC lets in exactly the roles its access option names',
    run: () => matrix(service, options),
  },
];
