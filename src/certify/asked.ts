import { ChangeKind } from '../gen/jeex/persistence/v1/change_service_pb.js';
import type { Asked } from './ledger.ts';
import { TYPES } from './ledger.ts';

/** A change that an operation makes when it is applied. */
export interface Expected {
  readonly kind: ChangeKind;
  /** The document type's place, of a version. */
  readonly type?: number;
  /** The code of the run or export, where it is known beforehand. */
  readonly target?: number;
}

const repeat = (count: number, make: (entry: number) => Expected): readonly Expected[] =>
  Array.from({ length: count }, (_, entry) => make(entry));

/** The type of a batch's document: they take turns. */
export const typeOf = (first: number, entry: number): number => (first + entry) % TYPES.length;

const versions = ({ type, count }: Required<Asked>): readonly Expected[] =>
  repeat(count, (entry) => ({ kind: ChangeKind.VERSION_APPENDED, type: typeOf(type, entry) }));

const step =
  (kind: ChangeKind) =>
  ({ target }: Required<Asked>): readonly Expected[] => [{ kind, target }];

const runs = ({ count }: Required<Asked>): readonly Expected[] =>
  repeat(count, () => ({ kind: ChangeKind.EXECUTION_CREATED }));

const CHANGES: Partial<Record<Asked['kind'], (asked: Required<Asked>) => readonly Expected[]>> = {
  append: versions,
  batchAppend: versions,
  restore: versions,
  update: () => [{ kind: ChangeKind.PROJECT_UPDATED }],
  createRun: runs,
  batchRuns: runs,
  startRun: step(ChangeKind.EXECUTION_STARTED),
  claimRun: () => [{ kind: ChangeKind.EXECUTION_STARTED }],
  completeRun: (asked) => [...versions(asked), { kind: ChangeKind.EXECUTION_COMPLETED, target: asked.target }],
  failRun: step(ChangeKind.EXECUTION_FAILED),
  cancelRun: step(ChangeKind.EXECUTION_CANCELLED),
  createExport: () => [{ kind: ChangeKind.EXPORT_CREATED }],
  startExport: step(ChangeKind.EXPORT_STARTED),
  completeExport: step(ChangeKind.EXPORT_COMPLETED),
  recordDownload: step(ChangeKind.EXPORT_DOWNLOADED),
};

/** The changes that an operation makes, in their order; none for a read and for a heartbeat, which is no news. */
export const expectedOf = (asked: Required<Asked>): readonly Expected[] => CHANGES[asked.kind]?.(asked) ?? [];
