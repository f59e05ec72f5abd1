import { randomUUID } from 'node:crypto';
import { ProjectStatus, Role } from '../gen/jeex/persistence/v1/project_service_pb.js';
import type { Connection, Services } from './client.ts';
import type { Story } from './story.ts';

/** Who and what the story is about, once it has begun. */
export interface Cast {
  readonly story: Story;
  /** The user who owns the project, every call part of one correlation. */
  readonly owner: Services;
  /** A member who may look, and nothing more. */
  readonly viewer: Services;
  /** A user who is no member. */
  readonly stranger: Services;
  /** A service that acts for no user. */
  readonly system: Services;
  readonly projectId: string;
  readonly correlationId: string;
}

/** Chapter 1: people, and a project in its language. */
export const open = async (story: Story, connection: Connection): Promise<Cast> => {
  story.chapter('1. People and a project');
  const correlationId = randomUUID();
  const as = (actor?: string) => connection.as({ correlationId, ...(actor && { actor }) });
  const system = as();
  const [ownerId, viewerId, strangerId] = [
    await newUser(system, 'Owner of the demo'),
    await newUser(system, 'Viewer of the demo'),
    await newUser(system, 'Stranger to the demo'),
  ];
  const owner = as(ownerId);
  const name = 'The persistence service of JEEX Idea';
  const { project } = await owner.projects.createProject({ name, language: 'en', metadata: { source: 'demo' } });
  const projectId = project?.id ?? '';
  story.say(`owner        ${ownerId}`);
  story.say(`project      ${projectId}  "${name}", in English`);
  story.say(`correlation  ${correlationId}  ties together all that follows`);
  story.same(
    'the project is a DRAFT in step 1, and who created it is its owner',
    [project?.status, project?.currentStep, project?.myRole],
    [ProjectStatus.DRAFT, 1, Role.OWNER],
  );

  const { user } = await owner.users.getUser({ id: ownerId });
  await story.refused(
    'an e-mail address belongs to one user, in any case of letters: EMAIL_TAKEN',
    'EMAIL_TAKEN',
    system.users.createUser({ email: user?.email.toUpperCase() ?? '', name: 'Somebody else' }),
  );
  await story.refused(
    "the project's language never changes: LANGUAGE_IMMUTABLE",
    'LANGUAGE_IMMUTABLE',
    owner.projects.updateProject({ project: { id: projectId, language: 'de' }, updateMask: { paths: ['language'] } }),
  );
  const { member } = await owner.projects.setMember({ projectId, userId: viewerId, role: Role.VIEWER });
  story.same('a second user is a viewer of the project', member?.role, Role.VIEWER);
  return { story, owner, viewer: as(viewerId), stranger: as(strangerId), system, projectId, correlationId };
};

const newUser = async (system: Services, name: string): Promise<string> => {
  const email = `demo-${randomUUID()}@example.org`;
  return (await system.users.createUser({ email, name })).user?.id ?? '';
};
