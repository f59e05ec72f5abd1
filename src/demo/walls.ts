import { randomUUID } from 'node:crypto';
import type { CallRefused } from './client.ts';
import type { Cast } from './opening.ts';

/** Chapter 4: who is no member sees no project, and who may look may not write. */
export const meetTheWalls = async ({ story, stranger, viewer, projectId }: Cast): Promise<void> => {
  story.chapter('4. Others');
  const hidden = await story.refused(
    'to a stranger the project does not exist: PROJECT_NOT_FOUND',
    'PROJECT_NOT_FOUND',
    stranger.projects.getProject({ id: projectId }),
  );
  const nowhere = randomUUID();
  const absent = await story.refused(
    'as does one that never was',
    'PROJECT_NOT_FOUND',
    stranger.projects.getProject({ id: nowhere }),
  );
  story.same('and the two answers cannot be told apart', told(hidden, projectId), told(absent, nowhere));
  await story.refused(
    'its documents are behind the same wall',
    'PROJECT_NOT_FOUND',
    stranger.documents.getVersion({ projectId, documentType: 'idea' }),
  );
  const { projects } = await stranger.projects.listProjects();
  story.same("a stranger's list of projects is empty", projects.length, 0);

  const { version } = await viewer.documents.getVersion({ projectId, documentType: 'idea' });
  story.same('a viewer reads', version?.version, 3);
  await story.refused(
    'and cannot write: ROLE_REQUIRED',
    'ROLE_REQUIRED',
    viewer.documents.appendVersion({ projectId, documentType: 'idea', content: 'my own idea' }),
  );
};

/** All that a refusal says, without the id that the caller brought. */
const told = ({ message, reason, metadata }: CallRefused, id: string) => [
  message.replaceAll(id, '…'),
  reason,
  JSON.stringify(metadata).replaceAll(id, '…'),
];
