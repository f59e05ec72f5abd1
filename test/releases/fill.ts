import { randomUUID } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import type { Client } from '@grpc/grpc-js';
import { ExecutionStatus } from '../../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ProjectStatus, Role, Visibility } from '../../src/gen/jeex/persistence/v1/project_service_pb.js';
import { FILE } from '../support/exports.ts';
import { type Clients, clientsOn } from '../support/service.ts';
import { type Recorded, record } from './recording.ts';

/** Texts that something on the way from one database to another could take for more than text, or change. */
const ODD_TEXTS = [
  `it''s 'quoted', "doubly", $$dollars$$ and $1, %s, E'\\n', a \\ and a \\\\`,
  '\\restrict a\n\\.\n\\N\n-- no comment\n/* nor this */;\n\\unrestrict a\n',
  'CR\rLF\nCRLF\r\ntab\tvertical\vform\fnbsp\u00a0ls\u2028ps\u2029bom\ufeffend ',
  'composed é, decomposed e\u0301, İıſß, 漢字, עברית, 👩‍👩‍👧‍👦, \u{10ffff}',
  '\u0001\u001f\u007f\u0080',
];
const ODD = ODD_TEXTS.join('\n');
const METADATA: JsonObject = { text: ODD, nested: { list: [1.5, -0.1, 1e21, null, true, {}, []] }, '': '' };

/** A long text whose lines differ. */
const LONG = Array.from(
  { length: 3000 },
  (_, line) => `## ${line}\nThe same words on each of many lines, ${line}.`,
).join('\n');
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
const TIMES = { startTime: { seconds: 1_700_000_000n, nanos: 123_456_000 }, completeTime: { seconds: 1_700_000_060n } };

interface World extends Clients {
  readonly projectId: string;
  /** Of the owner. */
  readonly actor: string;
  readonly channel: Client;
}

/**
 * Writes rows of every kind and in every state, beside those of the demo, to a service.
 * @returns what was answered to requests with an id, whose replies are kept
 */
export const fill = async (channel: Client): Promise<Recorded[]> => {
  const clients = clientsOn(channel);
  const actor = await person(clients, 'Owner');
  const { project } = await clients.projects.createProject(
    { name: ODD_TEXTS[0] ?? '', language: 'pt-BR', metadata: METADATA },
    { actor },
  );
  const world = { ...clients, channel, actor, projectId: project?.id ?? '' };
  await people(world);
  await documents(world);
  await executions(world);
  await exports(world);
  await projects(world);
  return await repeatable(world);
};

const person = async ({ users }: Clients, name: string): Promise<string> => {
  const email = `${name}.${randomUUID()}@Example.org`;
  return (await users.createUser({ email, name, profile: { name, theme: 'dark' } })).user?.id ?? '';
};

/** Members of each role, one who left, one who was erased, and one who is nowhere a member. */
const people = async (world: World): Promise<void> => {
  const { users, projects, documents, projectId, actor } = world;
  const [editor, viewer, former, erased] = [
    await person(world, 'Editor'),
    await person(world, 'Viewer'),
    await person(world, 'Former'),
    await person(world, 'Erased'),
  ];
  await person(world, 'Stranger');
  for (const userId of [editor, former, erased]) {
    await projects.setMember({ projectId, userId, role: Role.EDITOR }, { actor });
  }
  await projects.setMember({ projectId, userId: viewer, role: Role.VIEWER }, { actor });
  await documents.appendVersion({ projectId, documentType: 'erased', content: 'by who is gone' }, { actor: erased });
  await projects.removeMember({ projectId, userId: former }, { actor });
  await users.deleteUser({ id: erased });
  await users.recordLogin({ id: editor });
  await users.updateUser({ user: { id: viewer, name: ODD_TEXTS[3] ?? '', profile: METADATA } });
};

/** Odd and long texts, a batch, an empty one, and a restored one. */
const documents = async ({ documents, projectId, actor }: World): Promise<void> => {
  const append = (documentType: string, content: string) =>
    documents.appendVersion({ projectId, documentType, content, reason: ODD, metadata: METADATA }, { actor });
  for (const text of [ODD, ...ODD_TEXTS]) await append('odd', text);
  await append('long', LONG);
  await append('long', `${LONG}\nand one more`);
  await append('empty', '');
  await documents.batchAppendVersions(
    {
      projectId,
      entries: [
        { documentType: 'batch', content: 'one', readabilityScore: 0, grammarScore: 99.9 },
        { documentType: 'batch', content: 'two', grammarScore: 0.1 },
      ],
    },
    { actor },
  );
  await documents.restoreVersion({ projectId, documentType: 'odd', version: 2, reason: 'as it was' }, { actor });
};

/** A run in every state, with and without payloads, children and versions. */
const executions = async ({ executions, projectId, actor }: World): Promise<void> => {
  const begin = async (agentType: string, more: object = {}) => {
    const request = { projectId, agentType, input: { contentType: 'application/octet-stream', data: BYTES }, ...more };
    const { execution, leaseToken } = await executions.createExecution(request, { actor });
    return { projectId, id: execution?.id ?? '', leaseToken };
  };
  const running = { start: true, leaseSeconds: 3600 };
  await begin('pending');
  await begin('running', running);
  const completed = await begin('completed', running);
  const effort = { model: 'a model', inputTokens: 2n ** 53n + 1n, outputTokens: 2n, costMicros: 3n };
  const versions = [{ documentType: 'written', content: 'by a run', reason: ODD }];
  await executions.completeExecution({ ...completed, ...effort, versions, output: { data: BYTES } }, { actor });
  const failed = await begin('failed', { ...running, parentExecutionId: completed.id, attempt: 2 });
  await executions.failExecution({ ...failed, errorMessage: ODD }, { actor });
  const { id } = await begin('cancelled');
  await executions.cancelExecution({ projectId, id, cancelReason: ODD }, { actor });
  const past = [
    ExecutionStatus.COMPLETED,
    ExecutionStatus.FAILED,
    ExecutionStatus.CANCELLED,
    ExecutionStatus.TIMED_OUT,
  ];
  await executions.batchCreateExecutions(
    { projectId, executions: past.map((status) => ({ agentType: 'past', status, model: 'another', ...TIMES })) },
    { actor },
  );
};

/** An export in every state. */
const exports = async ({ exports, projectId, actor }: World): Promise<void> => {
  const create = async (documentTypes: string[] = []) =>
    (await exports.createExport({ projectId, documentTypes }, { actor })).export?.id ?? '';
  const start = async (id: string) => ({ ...(await exports.startExport({ projectId, id, leaseSeconds: 3600 })), id });
  await create(['odd', 'long']);
  await start(await create());
  const completed = await start(await create(['odd']));
  await exports.completeExport({ projectId, id: completed.id, leaseToken: completed.leaseToken, ...FILE });
  await exports.recordDownload({ projectId, id: completed.id }, { actor });
  const failed = await start(await create(['empty']));
  await exports.failExport({ projectId, id: failed.id, leaseToken: failed.leaseToken, errorMessage: ODD });
};

/** Projects that are archived, public, deleted, and purged. */
const projects = async ({ projects, documents, projectId, actor }: World): Promise<void> => {
  const create = async (name: string) => {
    const { project } = await projects.createProject({ name, language: 'en' }, { actor });
    const id = project?.id ?? '';
    await documents.appendVersion({ projectId: id, documentType: 'idea', content: name }, { actor });
    return id;
  };
  const update = (id: string, paths: string[], change: object) =>
    projects.updateProject({ project: { id, ...change }, updateMask: { paths } }, { actor });
  await projects.setProjectQuota({ projectId, quota: { documents: 17n } });
  await update(projectId, ['current_step', 'visibility'], { currentStep: 3, visibility: Visibility.PUBLIC_READ });
  const archived = await create('archived');
  for (const status of [ProjectStatus.ACTIVE, ProjectStatus.ARCHIVED]) await update(archived, ['status'], { status });
  await projects.deleteProject({ id: await create('deleted') }, { actor });
  const purged = await create('purged');
  await projects.deleteProject({ id: purged }, { actor });
  await projects.purgeProject({ id: purged });
};

/** Requests with an id, of every kind of reply. */
const repeatable = async ({ channel, projectId, actor }: World): Promise<Recorded[]> => {
  const recorded: Recorded[] = [];
  const ask = async (call: string, request: JsonObject, by?: string) => {
    const asked = { call, request: { ...request, requestId: randomUUID() }, ...(by !== undefined && { actor: by }) };
    recorded.push(await record(channel, asked));
  };
  await ask('UserService/CreateUser', { email: 'kept@example.org', name: 'Kept', profile: { of: 'a reply' } });
  await ask('ProjectService/UpdateProject', { project: { id: projectId, name: 'Renamed' } }, actor);
  await ask('DocumentService/AppendVersion', { projectId, documentType: 'kept', content: ODD }, actor);
  const data = BYTES.toString('base64');
  const run = { projectId, agentType: 'kept', input: { data }, start: true, leaseSeconds: 3600 };
  await ask('AgentExecutionService/CreateExecution', run, actor);
  await ask('ExportService/CreateExport', { projectId, documentTypes: ['kept'] }, actor);
  return recorded;
};
