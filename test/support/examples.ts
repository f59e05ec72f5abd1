import { randomBytes, randomUUID } from 'node:crypto';
import type { DescMethod } from '@bufbuild/protobuf';
import { Role } from '../../src/gen/jeex/persistence/v1/project_service_pb.js';
import type { CallOptions } from './client.ts';
import { keyOf } from './methods.ts';
import { newProject, newUser, type TestService } from './service.ts';

/** A call that succeeds, and for whom. */
export interface Example {
  readonly request: Record<string, unknown>;
  readonly options: CallOptions;
}

interface World {
  readonly service: TestService;
  readonly projectId: string;
  readonly owner: string;
  readonly editor: string;
  readonly viewer: string;
  readonly stranger: string;
}

const NOBODY: CallOptions = {};

const entry = (documentType: string) => ({
  documentType,
  content: `# ${documentType}\n${randomUUID()}\n`,
  reason: 'example',
});

const appended = async (world: World): Promise<void> => {
  await world.service.documents.appendVersion(
    { projectId: world.projectId, ...entry('idea') },
    { actor: world.editor },
  );
  await world.service.documents.appendVersion(
    { projectId: world.projectId, ...entry('idea') },
    { actor: world.editor },
  );
};

const execution = async (world: World, start: boolean) => {
  const request = { projectId: world.projectId, agentType: `writer-${randomUUID().slice(0, 8)}`, start };
  const { execution: created, leaseToken } = await world.service.executions.createExecution(request, {
    actor: world.editor,
  });
  return { projectId: world.projectId, id: created?.id ?? '', leaseToken, agentType: request.agentType };
};

const exported = async (world: World) => {
  await appended(world);
  const made = await world.service.exports.createExport({ projectId: world.projectId }, { actor: world.viewer });
  return { projectId: world.projectId, id: made.export?.id ?? '' };
};

const FILE = { filePath: 'exports/a.zip', fileSizeBytes: 10n, fileSha256: 'a'.repeat(64) };

const processing = async (world: World) => {
  const { projectId, id } = await exported(world);
  const { leaseToken } = await world.service.exports.startExport({ projectId, id });
  return { projectId, id, leaseToken };
};

/** One for every RPC, by `Service/Method`; a test fails for an RPC that has none. */
export const EXAMPLES: Readonly<Record<string, (world: World) => Promise<Example>>> = {
  'UserService/CreateUser': async () => ({
    request: { email: `${randomBytes(8).toString('hex')}@example.org`, name: 'Ann', profile: { theme: 'dark' } },
    options: NOBODY,
  }),
  'UserService/GetUser': async ({ owner, viewer }) => ({ request: { id: owner }, options: { actor: viewer } }),
  'UserService/GetUserByEmail': async ({ service, owner }) => ({
    request: { email: (await service.users.getUser({ id: owner })).user?.email },
    options: NOBODY,
  }),
  'UserService/BatchGetUsers': async ({ owner }) => ({ request: { ids: [owner] }, options: NOBODY }),
  'UserService/ListUsers': async () => ({ request: {}, options: NOBODY }),
  'UserService/UpdateUser': async ({ owner }) => ({
    request: { user: { id: owner, name: `Name ${randomUUID()}` } },
    options: { actor: owner },
  }),
  'UserService/RecordLogin': async ({ owner }) => ({ request: { id: owner }, options: NOBODY }),
  'UserService/DeleteUser': async ({ stranger }) => ({ request: { id: stranger }, options: NOBODY }),

  'ProjectService/CreateProject': async ({ owner }) => ({
    request: { name: 'Another', language: 'pt-BR', metadata: { a: [1, null, 'x'] } },
    options: { actor: owner },
  }),
  'ProjectService/GetProject': async ({ projectId, viewer }) => ({
    request: { id: projectId },
    options: { actor: viewer },
  }),
  'ProjectService/ListProjects': async ({ viewer }) => ({ request: {}, options: { actor: viewer } }),
  'ProjectService/UpdateProject': async ({ projectId, editor }) => ({
    request: { project: { id: projectId, name: `Name ${randomUUID()}` } },
    options: { actor: editor },
  }),
  'ProjectService/DeleteProject': async ({ projectId, owner }) => ({
    request: { id: projectId },
    options: { actor: owner },
  }),
  'ProjectService/UndeleteProject': async ({ service, projectId, owner }) => {
    await service.projects.deleteProject({ id: projectId }, { actor: owner });
    return { request: { id: projectId }, options: { actor: owner } };
  },
  'ProjectService/PurgeProject': async ({ projectId }) => ({ request: { id: projectId }, options: NOBODY }),
  'ProjectService/SetMember': async ({ projectId, owner, stranger }) => ({
    request: { projectId, userId: stranger, role: Role.EDITOR },
    options: { actor: owner },
  }),
  'ProjectService/RemoveMember': async ({ projectId, owner, viewer }) => ({
    request: { projectId, userId: viewer },
    options: { actor: owner },
  }),
  'ProjectService/ListMembers': async ({ projectId, viewer }) => ({
    request: { projectId },
    options: { actor: viewer },
  }),
  'ProjectService/GetProjectUsage': async ({ projectId, viewer }) => ({
    request: { projectId },
    options: { actor: viewer },
  }),
  'ProjectService/SetProjectQuota': async ({ projectId }) => ({
    request: { projectId, quota: { documents: 17n } },
    options: NOBODY,
  }),

  'DocumentService/AppendVersion': async ({ projectId, editor }) => ({
    request: { projectId, ...entry('plan') },
    options: { actor: editor },
  }),
  'DocumentService/BatchAppendVersions': async ({ projectId, editor }) => ({
    request: { projectId, entries: [entry('plan'), entry('idea'), entry('plan')] },
    options: { actor: editor },
  }),
  'DocumentService/GetVersion': async (world) => {
    await appended(world);
    return { request: { projectId: world.projectId, documentType: 'idea' }, options: { actor: world.viewer } };
  },
  'DocumentService/BatchGetVersions': async (world) => {
    await appended(world);
    return {
      request: { projectId: world.projectId, names: [{ documentType: 'idea', version: 1 }] },
      options: { actor: world.viewer },
    };
  },
  'DocumentService/ListDocuments': async (world) => {
    await appended(world);
    return { request: { projectId: world.projectId }, options: { actor: world.viewer } };
  },
  'DocumentService/ListVersions': async (world) => {
    await appended(world);
    return { request: { projectId: world.projectId, documentType: 'idea' }, options: { actor: world.viewer } };
  },
  'DocumentService/RestoreVersion': async (world) => {
    await appended(world);
    return {
      request: { projectId: world.projectId, documentType: 'idea', version: 1, reason: 'back' },
      options: { actor: world.editor },
    };
  },
  'DocumentService/DiffVersions': async (world) => {
    await appended(world);
    return {
      request: { projectId: world.projectId, documentType: 'idea', fromVersion: 1, toVersion: 2 },
      options: { actor: world.viewer },
    };
  },
  'DocumentService/SearchDocuments': async (world) => {
    await appended(world);
    return { request: { projectId: world.projectId, query: 'idea' }, options: { actor: world.viewer } };
  },

  'AgentExecutionService/CreateExecution': async ({ projectId, editor }) => ({
    request: { projectId, agentType: 'writer', input: { data: Buffer.from('{"q":1}') }, start: true },
    options: { actor: editor },
  }),
  'AgentExecutionService/StartExecution': async (world) => {
    const { projectId, id } = await execution(world, false);
    return { request: { projectId, id }, options: { actor: world.editor } };
  },
  'AgentExecutionService/ClaimExecution': async (world) => {
    const { agentType } = await execution(world, false);
    return { request: { agentTypes: [agentType] }, options: NOBODY };
  },
  'AgentExecutionService/HeartbeatExecution': async (world) => {
    const { projectId, id, leaseToken } = await execution(world, true);
    return { request: { projectId, id, leaseToken }, options: { actor: world.editor } };
  },
  'AgentExecutionService/CompleteExecution': async (world) => {
    const { projectId, id, leaseToken } = await execution(world, true);
    return {
      request: { projectId, id, leaseToken, output: { data: Buffer.from('{}') }, versions: [entry('idea')] },
      options: { actor: world.editor },
    };
  },
  'AgentExecutionService/FailExecution': async (world) => {
    const { projectId, id, leaseToken } = await execution(world, true);
    return { request: { projectId, id, leaseToken, errorMessage: 'it broke' }, options: { actor: world.editor } };
  },
  'AgentExecutionService/CancelExecution': async (world) => {
    const { projectId, id } = await execution(world, false);
    return { request: { projectId, id, cancelReason: 'not needed' }, options: { actor: world.editor } };
  },
  'AgentExecutionService/GetExecution': async (world) => {
    const { projectId, id } = await execution(world, false);
    return { request: { projectId, id }, options: { actor: world.viewer } };
  },
  'AgentExecutionService/ListExecutions': async ({ projectId, viewer }) => ({
    request: { projectId },
    options: { actor: viewer },
  }),
  'AgentExecutionService/BatchCreateExecutions': async ({ projectId, editor }) => ({
    request: {
      projectId,
      executions: [
        { agentType: 'a', status: 1 },
        { agentType: 'b', status: 1 },
      ],
    },
    options: { actor: editor },
  }),

  'ExportService/CreateExport': async (world) => {
    await appended(world);
    return { request: { projectId: world.projectId }, options: { actor: world.viewer } };
  },
  'ExportService/StreamExportContent': async (world) => ({
    request: await exported(world),
    options: { actor: world.viewer },
  }),
  'ExportService/ClaimExport': async (world) => {
    await exported(world);
    return { request: {}, options: NOBODY };
  },
  'ExportService/StartExport': async (world) => ({ request: await exported(world), options: NOBODY }),
  'ExportService/CompleteExport': async (world) => ({
    request: { ...(await processing(world)), ...FILE },
    options: NOBODY,
  }),
  'ExportService/FailExport': async (world) => ({
    request: { ...(await processing(world)), errorMessage: 'disk full' },
    options: NOBODY,
  }),
  'ExportService/GetExport': async (world) => ({ request: await exported(world), options: { actor: world.viewer } }),
  'ExportService/ListExports': async ({ projectId, viewer }) => ({
    request: { projectId },
    options: { actor: viewer },
  }),
  'ExportService/RecordDownload': async (world) => {
    const { projectId, id, leaseToken } = await processing(world);
    await world.service.exports.completeExport({ projectId, id, leaseToken, ...FILE });
    return { request: { projectId, id }, options: { actor: world.viewer } };
  },

  'ChangeService/WatchProject': async ({ projectId, viewer }) => ({
    request: { projectId, afterRevision: 0n },
    options: { actor: viewer },
  }),
  'ChangeService/WatchProjects': async ({ projectId, viewer }) => ({
    request: { cursors: [{ projectId, afterRevision: 0n }] },
    options: { actor: viewer },
  }),
  'ChangeService/ListChanges': async ({ projectId, viewer }) => ({
    request: { projectId },
    options: { actor: viewer },
  }),
  'ChangeService/GetTimeline': async ({ projectId, viewer }) => ({
    request: { projectId, correlationId: randomUUID() },
    options: { actor: viewer },
  }),

  'DatabaseService/GetServerInfo': async () => ({ request: {}, options: NOBODY }),
  'DatabaseService/GetDatabaseHealth': async () => ({ request: {}, options: NOBODY }),
  'DatabaseService/GetHealthHistory': async () => ({ request: {}, options: NOBODY }),
  'DatabaseService/ListSlowQueries': async () => ({ request: {}, options: NOBODY }),
  'DatabaseService/GetMigrationStatus': async () => ({ request: {}, options: NOBODY }),
  'DatabaseService/WatchHealth': async () => ({ request: {}, options: NOBODY }),
};

/** A project with its people, for one example. */
export const newWorld = async (service: TestService): Promise<World> => ({ service, ...(await newProject(service)) });

/** An owner beside the others, where a test takes one away. */
export const addOwner = async ({ service, projectId, owner }: World): Promise<string> => {
  const other = await newUser(service, 'Other owner');
  await service.projects.setMember({ projectId, userId: other, role: Role.OWNER }, { actor: owner });
  return other;
};

/** Uses up the project, or somebody in it. */
const DESTROYS = /^(Delete|Undelete|Purge)|^(RemoveMember|SetMember|SetProjectQuota)$/;

/** Makes examples, as many as a test uses up, in one project as far as that goes: a project of its own takes seven calls. */
export const useExamples = (service: TestService): ((method: DescMethod) => Promise<Example>) => {
  const shared = newWorld(service);
  return async (method) => makerOf(method)(await (DESTROYS.test(method.name) ? newWorld(service) : shared));
};

/** A call of an RPC that succeeds, in a world of its own. @throws Error for an RPC that has no example */
export const exampleOf = async (service: TestService, method: DescMethod): Promise<Example> =>
  makerOf(method)(await newWorld(service));

const makerOf = (method: DescMethod): ((world: World) => Promise<Example>) => {
  const make = EXAMPLES[keyOf(method)];
  if (!make) throw new Error(`${keyOf(method)} has no example in support/examples.ts`);
  return make;
};
