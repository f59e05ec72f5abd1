import { DocumentService, View } from '../gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../gen/jeex/persistence/v1/project_service_pb.js';
import { typeOf } from './asked.ts';
import type { Failed } from './door.ts';
import { type Actor, type Asked, type Seen, TYPES } from './ledger.ts';
import { codeOf } from './marks.ts';
import type { Worker } from './worker.ts';
import type { Surroundings } from './world.ts';

/** One thing that a caller does in a project. */
export type Step = (worker: Worker, around: Surroundings) => Promise<unknown>;

/** Who may write. */
export const writerOf = ({ random }: Worker): Actor => random.pick(['editor', 'editor', 'owner', 'system'] as const);

export const anyType = ({ random }: Worker): number => random.below(TYPES.length);
export const nameOfType = (type: number): string => TYPES[type] as string;

/** The head that a conflict tells. */
const conflictOf =
  ({ shared }: Worker, type: number) =>
  ({ reason, metadata }: Failed): readonly Seen[] =>
    reason === 'VERSION_CONFLICT' ? [shared.look.conflict(type, Number(metadata.current_version))] : [];

/** Sometimes with the head that the caller has seen. */
const expecting = ({ random }: Worker, { heads }: Surroundings, type: number) =>
  random.chance(0.3) ? { expectedVersion: heads[type] ?? 0 } : {};

const append: Step = async (worker, around) => {
  const { marks, look } = worker.shared;
  const { place } = around;
  const type = anyType(worker);
  const expected = expecting(worker, around, type);
  const done = await worker.write({
    asked: { kind: 'append', project: place.index, actor: writerOf(worker), type },
    method: DocumentService.method.appendVersion,
    request: (operation) => ({
      projectId: place.id,
      documentType: nameOfType(type),
      content: marks.content(codeOf(operation, 0)),
      ...expected,
    }),
    see: ({ version }) => (version ? [look.version(place, 'version', version, false)] : []),
    refused: conflictOf(worker, type),
  });
  const version = done?.message.version;
  if (version) around.learn(type, version.version, Number(version.projectRevision));
};

/** The documents of a batch. */
export const entriesOf = ({ shared }: Worker, operation: number, type: number, count: number) =>
  Array.from({ length: count }, (_, entry) => ({
    documentType: nameOfType(typeOf(type, entry)),
    content: shared.marks.content(codeOf(operation, entry)),
  }));

const batchAppend: Step = async (worker, { place }) => {
  const { look } = worker.shared;
  const type = anyType(worker);
  const count = 2 + worker.random.below(3);
  await worker.write({
    asked: { kind: 'batchAppend', project: place.index, actor: writerOf(worker), type, count },
    method: DocumentService.method.batchAppendVersions,
    request: (operation) => ({ projectId: place.id, entries: entriesOf(worker, operation, type, count) }),
    see: ({ versions }) => versions.map((version) => look.version(place, 'version', version, false)),
  });
};

const restore: Step = async (worker, around) => {
  const { look } = worker.shared;
  const { place, heads } = around;
  const type = anyType(worker);
  const head = heads[type] ?? 0;
  if (head === 0) return append(worker, around);
  const version = 1 + worker.random.below(head);
  return worker.write({
    asked: { kind: 'restore', project: place.index, actor: writerOf(worker), type, target: version },
    method: DocumentService.method.restoreVersion,
    request: () => ({ projectId: place.id, documentType: nameOfType(type), version, reason: 'certify' }),
    see: ({ version: made }) => (made ? [look.version(place, 'version', made, false)] : []),
  });
};

const update: Step = (worker, { place }) => {
  const { marks, look } = worker.shared;
  return worker.write({
    asked: { kind: 'update', project: place.index, actor: writerOf(worker) },
    method: ProjectService.method.updateProject,
    request: (operation) => ({
      project: { id: place.id, name: marks.name(operation) },
      updateMask: { paths: ['name'] },
    }),
    see: ({ project }) => (project ? [look.project(project)] : []),
  });
};

/** The same request id with another request: nothing but a refusal may come. */
const reuse: Step = async (worker, { place }) => {
  const { marks, faults } = worker.shared;
  const { appendVersion } = DocumentService.method;
  const asked: Asked = { kind: 'append', project: place.index, actor: 'editor', type: anyType(worker) };
  const request = { projectId: place.id, documentType: nameOfType(asked.type ?? 0) };
  const first = await worker.write({
    asked,
    method: appendVersion,
    request: (operation) => ({ ...request, content: marks.content(codeOf(operation, 0)) }),
    see: () => [],
  });
  if (first === null) return;
  const requestId = marks.requestId(first.operation);
  const other = { ...request, content: 'another request', requestId };
  const reason = await worker.provoke(appendVersion, other, { actor: worker.actor(asked) });
  if (reason !== null && reason !== 'REQUEST_ID_REUSED')
    faults.add('replay', `operation ${first.operation} append: its request id was taken for another request`);
};

const absentOf = (worker: Worker, sight: 'head' | 'headAt', type: number) => (failed: Failed) =>
  failed.reason === 'DOCUMENT_NOT_FOUND' || failed.reason === 'VERSION_NOT_FOUND'
    ? [worker.shared.look.absent(sight, type)]
    : [];

/** Who may read. */
export const readerOf = ({ random }: Worker): Actor => random.pick(['viewer', 'editor', 'owner', 'system'] as const);

const getHead: Step = async (worker, around) => {
  const { place } = around;
  const type = anyType(worker);
  const found = await worker.read({
    asked: { kind: 'getHead', project: place.index, actor: readerOf(worker), type },
    method: DocumentService.method.getVersion,
    request: { projectId: place.id, documentType: nameOfType(type) },
    see: ({ version }) => (version ? [worker.shared.look.version(place, 'head', version, true)] : []),
    refused: absentOf(worker, 'head', type),
  });
  const version = found?.version;
  if (version) around.learn(type, version.version, Number(version.projectRevision));
};

const getVersion: Step = async (worker, around) => {
  const { place, heads } = around;
  const type = anyType(worker);
  const head = heads[type] ?? 0;
  if (head === 0) return getHead(worker, around);
  const target = 1 + worker.random.below(head);
  return worker.read({
    asked: { kind: 'getVersion', project: place.index, actor: readerOf(worker), type, target },
    method: DocumentService.method.getVersion,
    request: { projectId: place.id, documentType: nameOfType(type), version: target },
    see: ({ version }) => (version ? [worker.shared.look.version(place, 'version', version, true)] : []),
  });
};

const getAtRevision: Step = async (worker, around) => {
  const { place, revision } = around;
  if (revision === 0) return getHead(worker, around);
  const type = anyType(worker);
  const target = 1 + worker.random.below(revision);
  return worker.read({
    asked: { kind: 'getAtRevision', project: place.index, actor: readerOf(worker), type, target },
    method: DocumentService.method.getVersion,
    request: { projectId: place.id, documentType: nameOfType(type), atRevision: BigInt(target) },
    see: ({ version }) => (version ? [worker.shared.look.version(place, 'headAt', version, true)] : []),
    refused: absentOf(worker, 'headAt', type),
  });
};

const listVersions: Step = (worker, { place }) => {
  const { look } = worker.shared;
  const type = anyType(worker);
  return worker.read({
    asked: { kind: 'listVersions', project: place.index, actor: readerOf(worker), type },
    method: DocumentService.method.listVersions,
    request: { projectId: place.id, documentType: nameOfType(type), pageSize: 5 },
    see: ({ versions }) =>
      versions.length === 0
        ? [look.absent('head', type)]
        : versions.map((version, row) => look.version(place, row === 0 ? 'head' : 'version', version, false)),
    refused: absentOf(worker, 'head', type),
  });
};

const listDocuments: Step = (worker, { place }) => {
  const { look } = worker.shared;
  return worker.read({
    asked: { kind: 'listDocuments', project: place.index, actor: readerOf(worker) },
    method: DocumentService.method.listDocuments,
    request: { projectId: place.id, view: View.BASIC },
    see: ({ documents }) => [
      ...documents.map((version) => look.version(place, 'head', version, false)),
      ...TYPES.flatMap((name, type) =>
        documents.some(({ documentType }) => documentType === name) ? [] : [look.absent('head', type)],
      ),
    ],
  });
};

/** How often which step is taken, beside those of runs and exports. */
export const DOCUMENT_STEPS: readonly (readonly [number, Step])[] = [
  [16, append],
  [4, batchAppend],
  [2, restore],
  [4, update],
  [1, reuse],
  [14, getHead],
  [5, getVersion],
  [4, getAtRevision],
  [3, listVersions],
  [3, listDocuments],
];
