import { randomBytes, randomUUID } from 'node:crypto';
import { type DescMethod, fromBinary } from '@bufbuild/protobuf';
import { AgentExecutionService } from '../../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { DocumentService } from '../../gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from '../../gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService, Role } from '../../gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../../gen/jeex/persistence/v1/user_service_pb.js';
import type { Door } from './door.ts';
import type { Facts } from './requests.ts';

/** Users who stand in every way towards a project. */
export interface Cast {
  readonly owner: string;
  readonly editor: string;
  readonly viewer: string;
  /** A member of nothing. */
  readonly stranger: string;
}

/** What belongs to a project alone. */
export type ProjectFacts = Omit<Facts, 'user' | 'creator' | 'email' | 'correlationId'>;

/** A project with its people and something of every kind in it. */
export interface World extends Cast {
  readonly facts: Facts;
}

/** The audit works on two of them: `a` is where it belongs, `b` is foreign to everybody of `a`. */
export interface Pair {
  readonly a: World;
  readonly b: World;
}

/** Long enough for what is held to stay held while the audit runs. */
const LEASE_SECONDS = 3600;
/** How many calls prepare or remove things at the same time. */
const PARALLEL = 8;

/** Runs work on each item, a few at a time. */
export const each = async <T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> => {
  const left = items[Symbol.iterator]();
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      for (const item of left) await work(item);
    }),
  );
};

/** A user whose address begins with the audit's correlation id. */
const newUser = async (door: Door, email: string): Promise<string> =>
  (await door.ask(UserService.method.createUser, { email, name: 'Isolation audit' })).user?.id ?? '';

const newAddress = ({ correlationId }: Door): string => `${correlationId}-${randomUUID()}@isolation-audit.invalid`;

export const newUsers = (door: Door, count: number): Promise<readonly string[]> =>
  Promise.all(Array.from({ length: count }, () => newUser(door, newAddress(door))));

/** An empty project of these people. */
export const newProject = async (door: Door, { owner, editor, viewer }: Omit<Cast, 'stranger'>): Promise<string> => {
  const as = { actor: owner };
  const { project } = await door.ask(
    ProjectService.method.createProject,
    { name: 'Isolation audit', language: 'en' },
    as,
  );
  const projectId = project?.id ?? '';
  const { setMember } = ProjectService.method;
  await door.ask(setMember, { projectId, userId: editor, role: Role.EDITOR }, as);
  await door.ask(setMember, { projectId, userId: viewer, role: Role.VIEWER }, as);
  return projectId;
};

/** Puts two of everything into a project, so that every list has a second page. */
export const fill = async (door: Door, projectId: string, editor: string): Promise<ProjectFacts> => {
  const mark = `audit${randomBytes(8).toString('hex')}`;
  const documentType = `idea-${randomBytes(6).toString('hex')}`;
  const agentType = `isolation-audit-${randomUUID()}`;
  const as = { actor: editor };
  const content = `# ${mark}\n\nOf project ${projectId}.\n`;
  const { appendVersion } = DocumentService.method;
  for (const type of [documentType, documentType, `${documentType}.plan`]) {
    await door.ask(appendVersion, { projectId, documentType: type, content }, as);
  }
  const { createExecution } = AgentExecutionService.method;
  const run = { projectId, agentType, input: { data: Buffer.from(content) } };
  const pending = await door.ask(createExecution, run, as);
  const running = await door.ask(createExecution, { ...run, start: true, leaseSeconds: LEASE_SECONDS }, as);
  const { createExport, startExport } = ExportService.method;
  const waiting = await door.ask(createExport, { projectId }, as);
  const id = (await door.ask(createExport, { projectId }, as)).export?.id ?? '';
  const { leaseToken } = await door.ask(startExport, { projectId, id, leaseSeconds: LEASE_SECONDS });
  return {
    project: projectId,
    execution: pending.execution?.id ?? '',
    running: running.execution?.id ?? '',
    runningLease: running.leaseToken,
    export: waiting.export?.id ?? '',
    processing: id,
    processingLease: leaseToken,
    documentType,
    agentType,
    mark,
  };
};

/** A project of new people, with two of everything. */
export const newWorld = async (door: Door): Promise<World> => {
  const email = newAddress(door);
  const owner = await newUser(door, email);
  const [editor = '', viewer = '', stranger = ''] = await newUsers(door, 3);
  const project = await newProject(door, { owner, editor, viewer });
  const own = await fill(door, project, editor);
  const facts = { ...own, user: viewer, creator: owner, email, correlationId: door.correlationId };
  return { owner, editor, viewer, stranger, facts };
};

/** Whether an answer holds a row of a project: its id, that of something in it, or its content. */
export const holdsRowOf = ({ facts }: World, bytes: Buffer): boolean => {
  const { project, execution, running, export: waiting, processing, mark } = facts;
  return [project, execution, running, waiting, processing, mark].some((text) => bytes.includes(text));
};

/** What the audit's calls have made, to be removed again whatever happens. */
export class Scratch {
  readonly #projects = new Set<string>();
  readonly #users = new Set<string>();

  note(method: DescMethod, bytes: Buffer): void {
    const { createProject } = ProjectService.method;
    const { createUser } = UserService.method;
    if (method === createProject) this.#projects.add(fromBinary(createProject.output, bytes).project?.id ?? '');
    if (method === createUser) this.#users.add(fromBinary(createUser.output, bytes).user?.id ?? '');
  }

  /** Purges the projects, then erases the users. @returns what is left, and why */
  async remove(door: Door): Promise<readonly string[]> {
    const left: string[] = [];
    const drop = async (
      method: typeof UserService.method.deleteUser | typeof ProjectService.method.purgeProject,
      id: string,
    ) => {
      await door.ask(method, { id }).catch((error: Error) => {
        if (!/_NOT_FOUND/.test(error.message)) left.push(`${id} stays: ${error.message}`);
      });
    };
    await each([...this.#projects], (id) => drop(ProjectService.method.purgeProject, id));
    await each([...this.#users], (id) => drop(UserService.method.deleteUser, id));
    return left;
  }
}
