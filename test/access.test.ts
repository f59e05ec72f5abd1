import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { getOption } from '@bufbuild/protobuf';
import { expectedEntrance } from '../src/audit/isolation/expected.ts';
import { Access, access } from '../src/gen/jeex/persistence/v1/access_pb.js';
import { Role, Visibility } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { SCOPES } from '../src/rpc/access.ts';
import { EXAMPLES, newWorld } from './support/examples.ts';
import { callOf, type Fields, inProject, keyOf, outcomeOf, PROJECT_METHODS, refusalSeen } from './support/methods.ts';
import { useService } from './support/service.ts';

const service = await useService();
const { projects } = service;
const CORRELATION = '0190f3a1-7b8c-7d2e-8f3a-000000000001';

const exampleOf = async (key: string, world: Awaited<ReturnType<typeof newWorld>>) => {
  const make = EXAMPLES[key];
  assert.ok(make, `${key} has no example`);
  return await make(world);
};

/** Of what the RPCs ask of their callers, test/auth-matrix.test.ts goes through all; here is what that alone does not say. */
describe('a role', () => {
  it('lets a member leave by itself, in any role but the last owner, and nobody else', async () => {
    const { projectId, owner: first, editor, viewer, stranger } = await newWorld(service);
    const leave = (userId: string) => outcomeOf(projects.removeMember({ projectId, userId }, { actor: userId }));
    assert.deepEqual(
      [await leave(stranger), await leave(viewer), await leave(viewer), await leave(editor), await leave(first)],
      ['PROJECT_NOT_FOUND', 'OK', 'PROJECT_NOT_FOUND', 'OK', 'LAST_OWNER'],
    );
  });

  it('lets an editor change all but the visibility, and name the one there is', async () => {
    const { projectId, editor, owner: first } = await newWorld(service);
    const set = (visibility: Visibility, actor: string) =>
      outcomeOf(projects.updateProject({ project: { id: projectId, visibility } }, { actor }));
    assert.equal(await set(Visibility.PUBLIC_READ, editor), 'ROLE_REQUIRED');
    assert.equal(await set(Visibility.PRIVATE, editor), 'OK');
    assert.equal(await set(Visibility.PUBLIC_READ, first), 'OK');
  });

  it('knows no erased actor, before any project is looked at', async () => {
    const { projectId, editor } = await newWorld(service);
    await service.users.deleteUser({ id: editor });
    for (const id of [projectId, randomUUID()]) {
      assert.equal(await outcomeOf(projects.getProject({ id }, { actor: editor })), 'ACTOR_UNKNOWN');
      assert.equal(await outcomeOf(projects.getProject({ id }, { actor: randomUUID() })), 'ACTOR_UNKNOWN');
    }
  });

  it('tells who created a project, and each actor its own role', async () => {
    const { projectId, owner: first, editor, viewer } = await newWorld(service);
    const roleOf = async (actor?: string) => (await projects.getProject({ id: projectId }, { actor })).project?.myRole;
    assert.deepEqual(
      [await roleOf(first), await roleOf(editor), await roleOf(viewer)],
      [Role.OWNER, Role.EDITOR, Role.VIEWER],
    );
    const named = await projects.createProject({ name: 'For another', language: 'de', createdBy: first });
    assert.equal(named.project?.createdBy, first);
    assert.equal(await outcomeOf(projects.createProject({ name: 'N', language: 'de' })), 'INVALID_FIELD');
    const foreign = projects.createProject({ name: 'N', language: 'de', createdBy: editor }, { actor: first });
    assert.equal(await outcomeOf(foreign), 'INVALID_FIELD');
  });
});

describe('PUBLIC_READ', () => {
  it('gives a non-member GetProject and the reads of documents, and nothing else', async () => {
    const seen: Record<string, string> = {};
    const expected: Record<string, string> = {};
    for (const method of PROJECT_METHODS) {
      const key = keyOf(method);
      const world = await newWorld(service);
      const { request } = await exampleOf(key, world);
      if (key === 'ProjectService/UndeleteProject') {
        await projects.undeleteProject({ id: world.projectId }, { actor: world.owner });
      }
      const project = { id: world.projectId, visibility: Visibility.PUBLIC_READ };
      await projects.updateProject({ project }, { actor: world.owner });
      seen[key] = await outcomeOf(callOf(service, method)(request, { actor: world.stranger }));
      expected[key] = expectedEntrance(method, { scopes: new Set(SCOPES), standing: 'stranger', publicRead: true });
    }
    assert.deepEqual(seen, expected);
  });

  it('ends when the project is private again, and shows the project in no list of a non-member', async () => {
    const { projectId, owner: first, stranger } = await newWorld(service);
    const show = (visibility: Visibility) =>
      projects.updateProject({ project: { id: projectId, visibility } }, { actor: first });
    await show(Visibility.PUBLIC_READ);
    const { project } = await projects.getProject({ id: projectId }, { actor: stranger });
    assert.equal(project?.myRole, Role.UNSPECIFIED);
    assert.deepEqual((await projects.listProjects({}, { actor: stranger })).projects, []);
    await show(Visibility.PRIVATE);
    assert.equal(await outcomeOf(projects.getProject({ id: projectId }, { actor: stranger })), 'PROJECT_NOT_FOUND');
  });
});

describe('a deleted project', () => {
  it('is PROJECT_DELETED to its owners on every RPC but those that see the deleted, and hidden from all others', async () => {
    const seen: Record<string, string[]> = {};
    const expected: Record<string, string[]> = {};
    for (const method of PROJECT_METHODS) {
      const key = keyOf(method);
      const world = await newWorld(service);
      const { request } = await exampleOf(key, world);
      await projects.deleteProject({ id: world.projectId }, { actor: world.owner });
      const call = (actor?: string) => outcomeOf(callOf(service, method)(request, { actor }));
      seen[key] = [await call(world.stranger), await call(world.viewer), await call(world.editor)];
      const byOwner = async () => [await call(world.owner), await call()];
      const system = [Access.ADMIN, Access.SYSTEM].includes(getOption(method, access));
      const hidden = system ? 'SCOPE_REQUIRED' : 'PROJECT_NOT_FOUND';
      const alive = /(Delete|Undelete|Purge)Project$/.test(key);
      const toSystem = alive ? 'OK' : 'PROJECT_DELETED';
      seen[key].push(...(await byOwner()));
      expected[key] = [hidden, hidden, hidden, system ? 'SCOPE_REQUIRED' : toSystem, toSystem];
    }
    assert.deepEqual(seen, expected);
  });
});

describe('a project of somebody else', () => {
  for (const method of PROJECT_METHODS) {
    const key = keyOf(method);
    it(`is answered by ${key} as one that does not exist`, async () => {
      const world = await newWorld(service);
      const { request } = await exampleOf(key, world);
      const nothing = randomUUID();
      const ask = (about: Fields, asked: string) =>
        refusalSeen(callOf(service, method)(about, { actor: world.stranger, correlationId: CORRELATION }), asked);
      const foreign = await ask(request, world.projectId);
      assert.match(foreign, /"reason":"(PROJECT_NOT_FOUND|SCOPE_REQUIRED)"/);
      assert.equal(foreign, await ask(inProject(method, request, nothing) ?? {}, nothing));
    });
  }
});
