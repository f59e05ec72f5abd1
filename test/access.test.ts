import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import type { DescMethod } from '@bufbuild/protobuf';
import { Role, Visibility } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import type { CallError } from './support/client.ts';
import { EXAMPLES, newWorld } from './support/examples.ts';
import { callOf, type Fields, inProject, isRead, keyOf, outcomeOf, PROJECT_METHODS } from './support/methods.ts';
import { useService } from './support/service.ts';

const service = await useService();
const { projects } = service;
const CORRELATION = '0190f3a1-7b8c-7d2e-8f3a-000000000001';

const exampleOf = async (key: string, world: Awaited<ReturnType<typeof newWorld>>) => {
  const make = EXAMPLES[key];
  assert.ok(make, `${key} has no example`);
  return await make(world);
};

/** The column "who" of the contract, for every RPC that is about one project. */
const NEEDS: Readonly<Record<string, 'reader' | 'member' | 'editor' | 'owner' | 'system'>> = {
  'ProjectService/GetProject': 'reader',
  'ProjectService/UpdateProject': 'editor',
  'ProjectService/DeleteProject': 'owner',
  'ProjectService/UndeleteProject': 'owner',
  'ProjectService/PurgeProject': 'system',
  'ProjectService/SetMember': 'owner',
  'ProjectService/RemoveMember': 'owner',
  'ProjectService/ListMembers': 'member',
  'ProjectService/GetProjectUsage': 'member',
  'ProjectService/SetProjectQuota': 'system',
  'DocumentService/AppendVersion': 'editor',
  'DocumentService/BatchAppendVersions': 'editor',
  'DocumentService/GetVersion': 'reader',
  'DocumentService/BatchGetVersions': 'reader',
  'DocumentService/ListDocuments': 'reader',
  'DocumentService/ListVersions': 'reader',
  'DocumentService/RestoreVersion': 'editor',
  'DocumentService/DiffVersions': 'reader',
  'DocumentService/SearchDocuments': 'reader',
  'AgentExecutionService/CreateExecution': 'editor',
  'AgentExecutionService/StartExecution': 'editor',
  'AgentExecutionService/HeartbeatExecution': 'editor',
  'AgentExecutionService/CompleteExecution': 'editor',
  'AgentExecutionService/FailExecution': 'editor',
  'AgentExecutionService/CancelExecution': 'editor',
  'AgentExecutionService/GetExecution': 'member',
  'AgentExecutionService/ListExecutions': 'member',
  'AgentExecutionService/BatchCreateExecutions': 'editor',
  'ExportService/CreateExport': 'member',
  'ExportService/StreamExportContent': 'member',
  'ExportService/StartExport': 'system',
  'ExportService/CompleteExport': 'system',
  'ExportService/FailExport': 'system',
  'ExportService/GetExport': 'member',
  'ExportService/ListExports': 'member',
  'ExportService/RecordDownload': 'member',
  'ChangeService/WatchProject': 'member',
  'ChangeService/WatchProjects': 'member',
  'ChangeService/ListChanges': 'member',
  'ChangeService/GetTimeline': 'member',
};

const ACTORS = ['stranger', 'viewer', 'editor', 'owner', 'system'] as const;
type Actor = (typeof ACTORS)[number];
const LEAST: Readonly<Record<string, Actor>> = { reader: 'viewer', member: 'viewer', editor: 'editor', owner: 'owner' };

const expectedFor = (need: string, actor: Actor): string => {
  if (need === 'system') return actor === 'system' ? 'OK' : 'SCOPE_REQUIRED';
  if (actor === 'stranger') return 'PROJECT_NOT_FOUND';
  return ACTORS.indexOf(actor) >= ACTORS.indexOf(LEAST[need] as Actor) ? 'OK' : 'ROLE_REQUIRED';
};

describe('who may do what', () => {
  it('is known for every RPC that is about a project', () => {
    assert.deepEqual(Object.keys(NEEDS).sort(), PROJECT_METHODS.map(keyOf).sort());
  });

  for (const method of PROJECT_METHODS) {
    const key = keyOf(method);
    const need = NEEDS[key] ?? 'system';
    it(`${key} takes ${need}`, async () => {
      let world = await newWorld(service);
      let { request } = await exampleOf(key, world);
      const seen: Partial<Record<Actor, string>> = {};
      const expected: Partial<Record<Actor, string>> = {};
      for (const name of ACTORS) {
        const actor = name === 'system' ? undefined : world[name];
        seen[name] = await outcomeOf(callOf(service, method)(request, { actor }));
        expected[name] = expectedFor(need, name);
        // A member may always remove itself, as the viewer does here.
        if (key === 'ProjectService/RemoveMember' && name === 'viewer') expected[name] = 'OK';
        // The project of this example is deleted, so that it is hidden from all but owners.
        if (key === 'ProjectService/UndeleteProject' && expected[name] === 'ROLE_REQUIRED') {
          expected[name] = 'PROJECT_NOT_FOUND';
        }
        if (seen[name] === 'OK' && !isRead(method)) {
          world = await newWorld(service);
          ({ request } = await exampleOf(key, world));
        }
      }
      assert.deepEqual(seen, expected);
    });
  }

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
      const need = NEEDS[key];
      expected[key] = need === 'reader' ? 'OK' : need === 'system' ? 'SCOPE_REQUIRED' : 'ROLE_REQUIRED';
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
      const system = NEEDS[key] === 'system';
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
  /** What a client sees of a refusal, with the id that was asked for taken out. */
  const refusal = async (method: DescMethod, request: Fields, actor: string, asked: string) => {
    try {
      await callOf(service, method)(request, { actor, correlationId: CORRELATION });
    } catch (error) {
      const { trailers, ...seen } = error as CallError;
      const details = trailers.get('grpc-status-details-bin').map(String);
      return JSON.stringify({ ...seen, details, names: Object.keys(trailers.getMap()) }).replaceAll(asked, 'ID');
    }
    return assert.fail('it was not refused');
  };

  for (const method of PROJECT_METHODS) {
    const key = keyOf(method);
    it(`is answered by ${key} as one that does not exist`, async () => {
      const world = await newWorld(service);
      const { request } = await exampleOf(key, world);
      const nothing = randomUUID();
      const foreign = await refusal(method, request, world.stranger, world.projectId);
      assert.match(foreign, /"reason":"(PROJECT_NOT_FOUND|SCOPE_REQUIRED)"/);
      const other = inProject(method, request, nothing) ?? {};
      assert.equal(foreign, await refusal(method, other, world.stranger, nothing));
    });
  }
});
