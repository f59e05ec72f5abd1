import { Column } from './column.ts';

/** What an operation can be. Those before `getProject` write. */
const KINDS = [
  'append',
  'batchAppend',
  'restore',
  'update',
  'createRun',
  'batchRuns',
  'startRun',
  'claimRun',
  'heartbeat',
  'completeRun',
  'failRun',
  'cancelRun',
  'createExport',
  'startExport',
  'completeExport',
  'recordDownload',
  'getProject',
  'getUsage',
  'getHead',
  'getVersion',
  'getAtRevision',
  'listVersions',
  'listDocuments',
  'getRun',
  'getExport',
  'streamExport',
  'listChanges',
  'getUser',
  'trespass',
  'auditVersions',
  'auditRuns',
  'auditExports',
] as const;
export type Kind = (typeof KINDS)[number];

const KIND_NUMBERS = new Map(KINDS.map((kind, number) => [kind, number]));
const FIRST_READ = KINDS.indexOf('getProject');

/** How a call ended. `refused`: a failure that says it took no effect; `unknown`: one that may have. */
const OUTCOMES = ['open', 'answered', 'refused', 'unknown'] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Who an operation is made for: a user of the project, or the system. */
const ACTORS = ['system', 'owner', 'editor', 'viewer', 'stranger'] as const;
export type Actor = (typeof ACTORS)[number];

/** What an operation asks for. */
export interface Asked {
  readonly kind: Kind;
  /** The project's place in the run; ANY_PROJECT for a claim. */
  readonly project: number;
  readonly actor: Actor;
  /** The document type's place in TYPES; of a batch the first one's, the others follow in turn. */
  readonly type?: number;
  /** How many documents or runs. */
  readonly count?: number;
  /** The code of the run or export it is about, the version to restore or read, or the revision to read at. */
  readonly target?: number;
}

export const ANY_PROJECT = 0xffff;
/** The documents of a scratch project. */
export const TYPES = ['idea', 'plan', 'design', 'notes', 'tests'] as const;

/** What a row of an answer is, and so what an observation says. */
const SIGHTS = ['head', 'version', 'headAt', 'run', 'export', 'manifest', 'project', 'usage', 'feed'] as const;
type Sight = (typeof SIGHTS)[number];

/** One row that an answer showed. What the numbers are depends on the sight: see `sights.ts`. */
export interface Seen {
  readonly sight: Sight;
  readonly type: number;
  readonly version: number;
  readonly revision: number;
  readonly code: number;
  readonly writer: number;
}

/** Calls that a ledger holds before the run ends by itself: about 80 bytes each with what they showed. */
const MOST_CALLS = 8_000_000;

/**
 * Every call, in the order they began: what was asked, when it began and ended, what came. Times are milliseconds of
 * `performance.now()`. Numbers in columns instead of objects, so that an hour of calls fits into memory.
 */
export class Ledger {
  readonly #kind = new Column('u8');
  readonly #project = new Column('u16');
  readonly #actor = new Column('u8');
  readonly #type = new Column('u8');
  readonly #count = new Column('u8');
  readonly #target = new Column('u32');
  readonly #lastCall = new Column('u32');
  readonly #operation = new Column('u32');
  readonly #attempt = new Column('u16');
  readonly #previous = new Column('u32');
  readonly #begin = new Column('f64');
  readonly #end = new Column('f64');
  readonly #outcome = new Column('u8');
  readonly #digest = new Column('u32');
  readonly #firstSeen = new Column('u32');
  readonly #seenCount = new Column('u16');
  readonly #sight = new Column('u8');
  readonly #seenType = new Column('u8');
  readonly #seenVersion = new Column('u32');
  readonly #seenRevision = new Column('u32');
  readonly #seenCode = new Column('u32');
  readonly #seenWriter = new Column('u32');
  /** Operations and calls count from 1, so that 0 is none. */
  operations = 0;
  calls = 0;
  #seen = 0;

  get full(): boolean {
    return this.calls >= MOST_CALLS;
  }

  /** Opens an operation. */
  ask({ kind, project, actor, type = 0, count = 1, target = 0 }: Asked): number {
    this.operations += 1;
    const operation = this.operations;
    this.#kind.set(operation, KIND_NUMBERS.get(kind) as number);
    this.#project.set(operation, project);
    this.#actor.set(operation, ACTORS.indexOf(actor));
    this.#type.set(operation, type);
    this.#count.set(operation, count);
    this.#target.set(operation, target);
    return operation;
  }

  /** A try of an operation begins. @param at milliseconds */
  begin(operation: number, at = performance.now()): number {
    this.calls += 1;
    const call = this.calls;
    const previous = this.#lastCall.at(operation);
    this.#operation.set(call, operation);
    this.#previous.set(call, previous);
    this.#attempt.set(call, previous === 0 ? 1 : this.#attempt.at(previous) + 1);
    this.#begin.set(call, at);
    this.#end.set(call, Number.POSITIVE_INFINITY);
    this.#lastCall.set(operation, call);
    return call;
  }

  /** It ends. @param digest of the answer's bytes */
  end(call: number, outcome: Outcome, digest = 0, at = performance.now()): void {
    this.#outcome.set(call, OUTCOMES.indexOf(outcome));
    this.#digest.set(call, digest);
    this.#end.set(call, at);
  }

  /** Notes what an answer showed: at once, all of it. */
  see(call: number, rows: readonly Seen[]): void {
    this.#firstSeen.set(call, this.#seen);
    this.#seenCount.set(call, rows.length);
    for (const { sight, type, version, revision, code, writer } of rows) {
      this.#sight.set(this.#seen, SIGHTS.indexOf(sight));
      this.#seenType.set(this.#seen, type);
      this.#seenVersion.set(this.#seen, version);
      this.#seenRevision.set(this.#seen, revision);
      this.#seenCode.set(this.#seen, code);
      this.#seenWriter.set(this.#seen, writer);
      this.#seen += 1;
    }
  }

  /** What an operation asked for. */
  asked(operation: number): Required<Asked> {
    return {
      kind: this.kind(operation),
      project: this.#project.at(operation),
      actor: ACTORS[this.#actor.at(operation)] as Actor,
      type: this.#type.at(operation),
      count: this.#count.at(operation),
      target: this.#target.at(operation),
    };
  }

  kind(operation: number): Kind {
    return KINDS[this.#kind.at(operation)] as Kind;
  }

  project(operation: number): number {
    return this.#project.at(operation);
  }

  writes(operation: number): boolean {
    return this.#kind.at(operation) < FIRST_READ;
  }

  operation(call: number): number {
    return this.#operation.at(call);
  }

  attempt(call: number): number {
    return this.#attempt.at(call);
  }

  beginOf(call: number): number {
    return this.#begin.at(call);
  }

  /** Infinity while it is open. */
  endOf(call: number): number {
    return this.#end.at(call);
  }

  outcome(call: number): Outcome {
    return OUTCOMES[this.#outcome.at(call)] as Outcome;
  }

  digest(call: number): number {
    return this.#digest.at(call);
  }

  /** An operation's calls, the last one first. */
  *callsOf(operation: number): Iterable<number> {
    for (let call = this.#lastCall.at(operation); call !== 0; call = this.#previous.at(call)) yield call;
  }

  /** The rows an answer showed. */
  *seenBy(call: number): Iterable<Seen> {
    const first = this.#firstSeen.at(call);
    for (let row = first; row < first + this.#seenCount.at(call); row++) {
      yield {
        sight: SIGHTS[this.#sight.at(row)] as Sight,
        type: this.#seenType.at(row),
        version: this.#seenVersion.at(row),
        revision: this.#seenRevision.at(row),
        code: this.#seenCode.at(row),
        writer: this.#seenWriter.at(row),
      };
    }
  }
}
