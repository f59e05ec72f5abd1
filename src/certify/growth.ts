import { type Change, ChangeKind } from '../gen/jeex/persistence/v1/change_service_pb.js';
import { type Expected, typeOf } from './asked.ts';
import type { Promised } from './faults.ts';
import { type Ledger, TYPES } from './ledger.ts';
import { codeOf } from './marks.ts';
import { PENDING, RUNNING, type Timeline } from './timeline.ts';

/** Whose a change is: the operation, and which of its things; operation 0 for what the service does by itself. */
interface Maker {
  readonly operation: number;
  readonly entry: number;
  readonly wanted?: Expected | undefined;
}

/** Lets a timeline grow by one change after the other, and tells of those that do not follow from what was there. */
export class Growth {
  readonly #ledger: Ledger;
  readonly #timeline: Timeline;
  readonly #blame: (promise: Promised, change: Change, wrong: string) => void;

  constructor(ledger: Ledger, timeline: Timeline, blame: (promise: Promised, change: Change, wrong: string) => void) {
    this.#ledger = ledger;
    this.#timeline = timeline;
    this.#blame = blame;
  }

  add(change: Change, maker: Maker): void {
    switch (change.kind) {
      case ChangeKind.VERSION_APPENDED:
        this.#append(change, maker);
        break;
      case ChangeKind.PROJECT_UPDATED:
        this.#timeline.names.push({ revision: Number(change.revision), operation: maker.operation });
        break;
      case ChangeKind.EXECUTION_CREATED:
        this.#create('run', change, maker);
        break;
      case ChangeKind.EXPORT_CREATED:
        this.#create('export', change, maker);
        break;
      default:
        this.#step(change, maker);
    }
  }

  #append(change: Change, { operation, entry, wanted }: Maker): void {
    const type = TYPES.indexOf(change.documentType as (typeof TYPES)[number]);
    const document = this.#timeline.documents[type];
    if (document === undefined || type !== wanted?.type) {
      this.#blame('change', change, 'is of a document that nobody asked to write');
      return;
    }
    const next = document.revisions.length + 1;
    if (change.version !== next)
      this.#blame('versionGap', change, `is version ${change.version} where ${next} comes next`);
    this.#timeline.appended(type, Number(change.revision), operation, this.#contentOf(operation, entry));
  }

  #contentOf(operation: number, entry: number): number {
    const { kind, type, target } = this.#ledger.asked(operation);
    if (kind !== 'restore') return codeOf(operation, entry);
    return this.#timeline.documents[typeOf(type, entry)]?.codes[target - 1] ?? 0;
  }

  #create(what: 'run' | 'export', { resourceId, revision }: Change, { operation, entry }: Maker): void {
    const { kind, target } = this.#ledger.asked(operation);
    const status = kind === 'createRun' && target === RUNNING ? RUNNING : PENDING;
    this.#timeline.created(what, resourceId, codeOf(operation, entry), Number(revision), status);
  }

  #step(change: Change, { operation, wanted }: Maker): void {
    const { kind, resourceId, revision } = change;
    const code = this.#timeline.codeOf(resourceId) ?? 0;
    const wrong = this.#timeline.stepped(kind, code, Number(revision), operation);
    if (wrong !== null) this.#blame(isLease(kind) ? 'lease' : 'change', change, wrong);
    if (wanted?.target !== undefined && wanted.target !== code) {
      this.#blame('change', change, `is of another one than operation ${operation} asked for`);
    }
  }
}

const isLease = (kind: ChangeKind): boolean =>
  kind === ChangeKind.EXECUTION_STARTED || kind === ChangeKind.EXPORT_STARTED;
