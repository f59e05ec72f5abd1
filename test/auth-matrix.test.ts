import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { create, type DescMethod, getOption } from '@bufbuild/protobuf';
import { type Asker, expectedEntrance, STANDINGS, type Standing } from '../src/audit/isolation/expected.ts';
import { Health } from '../src/gen/grpc/health/v1/health_pb.js';
import { Access, access } from '../src/gen/jeex/persistence/v1/access_pb.js';
import { SCOPES } from '../src/rpc/access.ts';
import { compileSubject } from '../src/rpc/subject.ts';
import { clientOf, openChannel } from './support/client.ts';
import { EXAMPLES, newWorld } from './support/examples.ts';
import {
  callOf,
  type Fields,
  inProject,
  isRead,
  keyOf,
  METHODS,
  outcomeOf,
  PROJECT_METHODS,
  refusalSeen,
} from './support/methods.ts';
import { listServices } from './support/reflection.ts';
import { useService } from './support/service.ts';
import { forgeries, useIssuer } from './support/tokens.ts';

const issuer = await useIssuer();
const everything = `Bearer ${await issuer.token()}`;
const service = await useService({ env: issuer.env, headers: { authorization: everything } });
// For the calls that are looked at: it carries nothing by itself.
const channel = openChannel(service.grpc);
after(() => channel.close());

type World = Awaited<ReturnType<typeof newWorld>>;

const authorized = async (claims: object): Promise<string> => `Bearer ${await issuer.token({ ...claims })}`;

const call = (method: DescMethod, request: Fields, authorization: string | undefined, actor?: string) =>
  callOf({ channel }, method)(request, { actor, headers: authorization === undefined ? {} : { authorization } });

const exampleOf = async (method: DescMethod): Promise<{ world: World; request: Fields; deleted: boolean }> => {
  const world = await newWorld(service);
  const make = EXAMPLES[keyOf(method)];
  assert.ok(make, `${keyOf(method)} has no example`);
  const { request } = await make(world);
  const { project } = await service.projects.getProject({ id: world.projectId, showDeleted: true });
  return { world, request, deleted: project?.deleteTime !== undefined };
};

const actorOf = (world: World, standing: Standing): string | undefined => {
  if (standing === 'none') return undefined;
  return standing === 'unknown' ? randomUUID() : world[standing];
};

/** The system names the owner of what it makes; an actor is the owner itself. */
const requestAs = (method: DescMethod, request: Fields, { owner }: World, standing: Standing): Fields =>
  standing === 'none' && method.input.fields.some(({ name }) => name === 'created_by')
    ? { ...request, createdBy: owner }
    : request;

const askerOf = (method: DescMethod, request: Fields, world: World, standing: Standing, scopes: string[]): Asker => {
  const { projects, users } = compileSubject(method)(create(method.input, request));
  const self = users.some((user) => user === actorOf(world, standing));
  // To a user who is in no project, everybody else is a stranger.
  const apart = projects.length === 0 && users.includes(world.stranger) && !['none', 'unknown'].includes(standing);
  return { scopes: new Set(scopes), standing: apart ? 'stranger' : standing, self };
};

describe('a call that is not authenticated', async () => {
  for (const [name, [authorization]] of Object.entries(await forgeries(issuer))) {
    it(`is refused by every RPC: ${name}`, async () => {
      const seen = METHODS.map(async (method) => [
        keyOf(method),
        await outcomeOf(call(method, {}, authorization, randomUUID())),
      ]);
      const expected = METHODS.map((method) => [keyOf(method), 'UNAUTHENTICATED']);
      assert.deepEqual(await Promise.all(seen), expected);
    });
  }

  it('is answered by health and reflection', async () => {
    const { check } = clientOf(Health, channel);
    assert.equal((await check({ service: '' })).status, 1);
    for (const version of ['v1', 'v1alpha'] as const) {
      assert.ok((await listServices(service.grpc, version)).services.includes('jeex.persistence.v1.UserService'));
    }
    for (const path of ['livez', 'readyz']) assert.equal((await fetch(`http://${service.http}/${path}`)).status, 200);
  });
});

describe('what a call is let in for: scopes, and what the actor is to the project', async () => {
  const sets: readonly string[][] = [[], ...SCOPES.map((scope) => [scope]), [...SCOPES]];
  const tokens = await Promise.all(sets.map((scopes) => authorized({ scope: scopes.join(' ') })));

  const cells = STANDINGS.flatMap((standing) =>
    sets.map((scopes, index) => ({ standing, scopes, token: tokens[index], name: `${standing}: ${scopes.join(' ')}` })),
  );

  for (const method of METHODS) {
    it(keyOf(method), async () => {
      const common = await exampleOf(method);
      const expected = cells.map(({ standing, scopes, name }) => {
        const request = requestAs(method, common.request, common.world, standing);
        const entrance = expectedEntrance(method, askerOf(method, request, common.world, standing, scopes));
        // A deleted project is hidden from all but its owners.
        return [name, common.deleted && entrance === 'ROLE_REQUIRED' ? 'PROJECT_NOT_FOUND' : entrance] as const;
      });
      const seen = cells.map(async ({ standing, token, name }, index) => {
        const changes = !isRead(method) && expected[index]?.[1] === 'OK';
        const { world, request } = changes ? await exampleOf(method) : common;
        const asked = requestAs(method, request, world, standing);
        return [name, await outcomeOf(call(method, asked, token, actorOf(world, standing)))];
      });
      assert.deepEqual(Object.fromEntries(await Promise.all(seen)), Object.fromEntries(expected));
    });
  }
});

/** Calls that are about nobody and nothing in particular. */
const isOpen = (method: DescMethod): boolean => [Access.ANYONE, Access.MONITOR].includes(getOption(method, access));
/** Calls for which no actor may be named. */
const isAlone = (method: DescMethod): boolean => [Access.ADMIN, Access.SYSTEM].includes(getOption(method, access));

describe('a token for some users', () => {
  for (const method of METHODS) {
    it(`covers no other, and not the system: ${keyOf(method)}`, async () => {
      const { world, request } = await exampleOf(method);
      const { owner, editor } = world;
      const narrow = await authorized({ actors: [owner.toUpperCase()] });
      assert.equal(await outcomeOf(call(method, request, narrow, editor)), 'SCOPE_REQUIRED');
      const system = isOpen(method) ? 'OK' : 'SCOPE_REQUIRED';
      assert.equal(await outcomeOf(call(method, request, narrow)), system);
      const asker = askerOf(method, request, world, 'owner', [...SCOPES]);
      assert.equal(await outcomeOf(call(method, request, narrow, owner)), expectedEntrance(method, asker));
    });
  }
});

describe('a token for some projects', () => {
  for (const method of METHODS) {
    it(`covers no other, and nothing beyond projects: ${keyOf(method)}`, async () => {
      const { world, request } = await exampleOf(method);
      const actor = isAlone(method) || isOpen(method) ? undefined : world.owner;
      const wanted = requestAs(method, request, world, actor === undefined ? 'none' : 'owner');
      const here = await authorized({ projects: [world.projectId.toUpperCase()] });
      const elsewhere = await authorized({ projects: [randomUUID()] });
      const none = await authorized({ projects: [] });
      const about = PROJECT_METHODS.includes(method);
      const outside = isOpen(method) ? 'OK' : about ? 'PROJECT_NOT_FOUND' : 'SCOPE_REQUIRED';
      assert.equal(await outcomeOf(call(method, wanted, elsewhere, actor)), outside);
      assert.equal(await outcomeOf(call(method, wanted, none, actor)), outside);
      if (about) {
        const nothing = randomUUID();
        const missing = call(method, inProject(method, request, nothing) ?? {}, everything, actor);
        const covered = refusalSeen(call(method, wanted, elsewhere, actor), world.projectId);
        assert.equal(await covered, await refusalSeen(missing, nothing), 'as a project that does not exist');
      }
      const inside = about || isOpen(method) ? 'OK' : 'SCOPE_REQUIRED';
      assert.equal(await outcomeOf(call(method, wanted, here, actor)), inside);
    });
  }
});
