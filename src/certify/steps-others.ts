import { ChangeService } from '../gen/jeex/persistence/v1/change_service_pb.js';
import { DocumentService } from '../gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../gen/jeex/persistence/v1/user_service_pb.js';
import type { Asked } from './ledger.ts';
import { anyType, nameOfType, readerOf, type Step } from './steps-documents.ts';

const getProject: Step = async (worker, around) => {
  const { place } = around;
  const { look, faults } = worker.shared;
  const asked: Asked = { kind: 'getProject', project: place.index, actor: readerOf(worker) };
  await worker.read({
    asked,
    method: ProjectService.method.getProject,
    request: { id: place.id },
    see: ({ project }) => {
      if (project?.id !== place.id) faults.add('foreign', `project ${place.id} was asked for, ${project?.id} answered`);
      return project ? [look.project(project)] : [];
    },
  });
};

const getUsage: Step = (worker, { place }) =>
  worker.read({
    asked: { kind: 'getUsage', project: place.index, actor: readerOf(worker) },
    method: ProjectService.method.getProjectUsage,
    request: { projectId: place.id },
    see: ({ usage }) => (usage ? [worker.shared.look.usage(usage)] : []),
  });

const MOST_LISTED = 20;

const listChanges: Step = (worker, { place, revision }) => {
  const after = Math.max(0, revision - worker.random.below(MOST_LISTED));
  return worker.read({
    asked: { kind: 'listChanges', project: place.index, actor: readerOf(worker), target: after },
    method: ChangeService.method.listChanges,
    request: { projectId: place.id, afterRevision: BigInt(after), pageSize: MOST_LISTED },
    see: ({ changes, nextPageToken }) => [worker.shared.look.feed(place, changes, after, nextPageToken === '')],
  });
};

const getUser: Step = async (worker, { place }) => {
  const { viewer, owner } = place.users;
  const found = await worker.read({
    asked: { kind: 'getUser', project: place.index, actor: 'owner' },
    method: UserService.method.getUser,
    request: { id: worker.random.pick([viewer, owner]) },
    see: () => [],
  });
  const id = found?.user?.id;
  if (found && id !== viewer && id !== owner) worker.shared.faults.add('foreign', `another user than asked for: ${id}`);
};

/** Who is no member asks, by the right ids: to it, nothing of the project is there. */
const trespass: Step = async (worker, { place }) => {
  const { faults, places } = worker.shared;
  const neighbour = places[(place.index + 1) % places.length];
  const actor = neighbour && neighbour !== place ? neighbour.users.owner : place.users.stranger;
  const request = { projectId: place.id, documentType: nameOfType(anyType(worker)) };
  const reason = await worker.provoke(DocumentService.method.getVersion, request, { actor });
  if (reason !== null && reason !== 'PROJECT_NOT_FOUND') {
    faults.add('foreign', `user ${actor}, who is no member of project ${place.id}, was answered ${reason}`);
  }
};

/** The project itself, its record, its people, and who is none of them. */
export const OTHER_STEPS: readonly (readonly [number, Step])[] = [
  [8, getProject],
  [2, getUsage],
  [2, listChanges],
  [1, getUser],
  [2, trespass],
];
