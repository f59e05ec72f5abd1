import { ChangeKind } from '../gen/jeex/persistence/v1/change_service_pb.js';
import { TYPES } from './ledger.ts';

/** A run or an export over time. */
export interface Life {
  readonly created: number;
  /** The statuses it had, each from a revision on. */
  readonly steps: { readonly revision: number; readonly status: number }[];
  /** The operation that completed it; 0: none yet. */
  completedBy: number;
  /** Of an export: the revisions of its downloads. */
  readonly downloads: number[];
}

/** A document over time: version v is at place v - 1. */
export interface DocumentLife {
  readonly revisions: number[];
  readonly writers: number[];
  /** What wrote the content: of a restored version not its own writer. */
  readonly codes: number[];
}

/** From which revision to which a state lasted. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** The statuses that a change brings, with the numbers of the contract. */
const RUN_STATUS: Partial<Record<ChangeKind, number>> = {
  [ChangeKind.EXECUTION_STARTED]: 2,
  [ChangeKind.EXECUTION_COMPLETED]: 3,
  [ChangeKind.EXECUTION_FAILED]: 4,
  [ChangeKind.EXECUTION_CANCELLED]: 5,
  [ChangeKind.EXECUTION_TIMED_OUT]: 6,
};
const EXPORT_STATUS: Partial<Record<ChangeKind, number>> = {
  [ChangeKind.EXPORT_STARTED]: 2,
  [ChangeKind.EXPORT_COMPLETED]: 3,
  [ChangeKind.EXPORT_FAILED]: 4,
  [ChangeKind.EXPORT_RETURNED]: 1,
};
const LEGAL_RUN: Readonly<Record<number, readonly number[]>> = { 1: [2, 5], 2: [3, 4, 5, 6] };
const LEGAL_EXPORT: Readonly<Record<number, readonly number[]>> = { 1: [2], 2: [1, 3, 4] };
export const PENDING = 1;
export const RUNNING = 2;

/** What a project was at each of its revisions, as the record of changes says: what every answer is held against. */
export class Timeline {
  head = 0;
  readonly documents: readonly DocumentLife[] = TYPES.map(() => ({ revisions: [], writers: [], codes: [] }));
  /** The revisions and operations that gave the project its names. */
  readonly names: { readonly revision: number; readonly operation: number }[] = [];
  readonly runs = new Map<number, Life>();
  readonly exports = new Map<number, Life>();
  /** The revisions of all versions, of all runs and of all exports, as they came. */
  readonly versionsAt: number[] = [];
  readonly runsAt: number[] = [];
  readonly exportsAt: number[] = [];
  /** Of each revision, the last 32 bits of its chain. */
  readonly chains: number[] = [0];
  readonly #codes = new Map<string, number>();

  /** What the record names a run or an export by. */
  codeOf(resourceId: string): number | undefined {
    return this.#codes.get(resourceId);
  }

  appended(type: number, revision: number, writer: number, code: number): void {
    const document = this.documents[type];
    document?.revisions.push(revision);
    document?.writers.push(writer);
    document?.codes.push(code);
    this.versionsAt.push(revision);
  }

  /** A run or an export begins. @param status its first one */
  created(what: 'run' | 'export', resourceId: string, code: number, revision: number, status: number): void {
    this.#codes.set(resourceId, code);
    (what === 'run' ? this.runsAt : this.exportsAt).push(revision);
    const life = { created: revision, steps: [{ revision, status }], completedBy: 0, downloads: [] };
    (what === 'run' ? this.runs : this.exports).set(code, life);
  }

  /** It goes on to another status. @returns what is wrong with that; null: nothing */
  stepped(kind: ChangeKind, code: number, revision: number, operation: number): string | null {
    const run = this.runs.get(code);
    const life = run ?? this.exports.get(code);
    if (life === undefined) return 'is of nothing that was created';
    if (kind === ChangeKind.EXPORT_DOWNLOADED) {
      life.downloads.push(revision);
      return null;
    }
    const status = (run ? RUN_STATUS : EXPORT_STATUS)[kind] ?? 0;
    const before = life.steps.at(-1)?.status ?? 0;
    life.steps.push({ revision, status });
    if (status === 3) life.completedBy = operation;
    const legal = (run ? LEGAL_RUN : LEGAL_EXPORT)[before]?.includes(status) ?? false;
    return legal ? null : `follows status ${before}`;
  }

  /** How long the state after the nth of these revisions lasted; from 0 on for the 0th. */
  spanOf(revisions: readonly number[], count: number): Span {
    return { from: count === 0 ? 0 : (revisions[count - 1] as number), to: (revisions[count] ?? this.head + 1) - 1 };
  }

  /** How many of these revisions are not after one. */
  static countUpTo(revisions: readonly number[], revision: number): number {
    let [low, high] = [0, revisions.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((revisions[middle] as number) <= revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** A document's head at a revision; 0: it was not there yet. */
  headAt(type: number, revision: number): number {
    return Timeline.countUpTo(this.documents[type]?.revisions ?? [], revision);
  }

  /** The operation that had named the project at a revision; 0: the set-up. */
  nameAt(revision: number): number {
    let [low, high] = [0, this.names.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.names[middle]?.revision ?? 0) <= revision) low = middle + 1;
      else high = middle;
    }
    return this.names[low - 1]?.operation ?? 0;
  }

  /** How long something had a status, counted from the last time it got it; null when it never had. */
  statusSpans(life: Life, status: number): readonly Span[] {
    return life.steps.flatMap((step, place) =>
      step.status === status
        ? [{ from: step.revision, to: (life.steps[place + 1]?.revision ?? this.head + 1) - 1 }]
        : [],
    );
  }
}
