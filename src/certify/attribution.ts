import { ChainWalk } from '../changes/chain.ts';
import { linkOf } from '../demo/record.ts';
import { type Change, ChangeKind } from '../gen/jeex/persistence/v1/change_service_pb.js';
import type { Applications } from './applications.ts';
import { type Expected, expectedOf } from './asked.ts';
import type { Faults } from './faults.ts';
import { Growth } from './growth.ts';
import { type History, nameOf, type Place } from './history.ts';
import { ANY_PROJECT, type Asked } from './ledger.ts';
import type { Try } from './marks.ts';
import { Timeline } from './timeline.ts';

/** What the service does by itself, and as whom. */
const SERVICE = 'jeex-persistence';
const BY_ITSELF: ReadonlySet<ChangeKind> = new Set([
  ChangeKind.EXECUTION_TIMED_OUT,
  ChangeKind.EXECUTION_CANCELLED,
  ChangeKind.EXPORT_RETURNED,
]);
/** What making a scratch project changes. */
const SET_UP: ReadonlySet<ChangeKind> = new Set([
  ChangeKind.PROJECT_CREATED,
  ChangeKind.MEMBER_ADDED,
  ChangeKind.PROJECT_QUOTA_SET,
]);

/** An operation whose changes are being read. */
interface Open extends Try {
  readonly asked: Required<Asked>;
  readonly expected: readonly Expected[];
  readonly first: number;
  /** How many of them have been read. */
  read: number;
}

/** Reads one project's record of changes and finds, for each, the operation that made it. */
export class Attribution {
  readonly #history: History;
  readonly #place: Place;
  readonly #applied: Applications;
  readonly #faults: Faults;
  readonly #timeline = new Timeline();
  readonly #growth: Growth;
  readonly #chain = new ChainWalk();
  #caller = '';
  #open: Open | null = null;

  constructor(history: History, place: Place, applied: Applications, faults: Faults) {
    this.#history = history;
    this.#place = place;
    this.#applied = applied;
    this.#faults = faults;
    this.#growth = new Growth(history.ledger, this.#timeline, (promise, change, wrong) =>
      this.#blame(promise, `${this.#told(change)} ${wrong}`),
    );
  }

  /** Takes the next page. */
  read(changes: readonly Change[]): void {
    for (const change of changes) this.#take(change);
    const last = changes.at(-1);
    if (last === undefined) return;
    const feed = { head: last.revision, head_chain: Buffer.from(last.chain, 'hex'), earliest_revision: 0n };
    this.#chain.read(feed, changes.map(linkOf));
  }

  /** After the last page. */
  end(): Timeline {
    this.#close();
    const { faults } = this.#chain.end();
    // Gaps have been told already.
    for (const { fault, text } of faults) if (fault !== 'missing') this.#blame('chain', text);
    return this.#timeline;
  }

  #take(change: Change): void {
    const revision = Number(change.revision);
    const { head } = this.#timeline;
    if (revision > head + 1) this.#blame('revisionGap', `${this.#at(head + 1)} to ${revision - 1} are missing`);
    if (revision <= head) this.#blame('revisionGap', `${this.#at(revision)} comes again`);
    if (change.projectId !== this.#place.id) this.#blame('foreign', `${this.#at(revision)} is of ${change.projectId}`);
    this.#timeline.head = Math.max(head, revision);
    this.#timeline.chains[revision] = Number.parseInt(change.chain.slice(-8), 16);
    if (this.#byItself(change)) {
      this.#close();
      this.#growth.add(change, { operation: 0, entry: 0 });
    } else {
      this.#attribute(change);
    }
  }

  #byItself({ kind, caller, actorId }: Change): boolean {
    return BY_ITSELF.has(kind) && caller === SERVICE && actorId === '';
  }

  #attribute(change: Change): void {
    const { ledger, marks } = this.#history;
    const found = marks.readCorrelation(change.correlationId);
    if (found?.operation === 0) {
      this.#setUp(change);
    } else if (found === null || found.operation > ledger.operations) {
      this.#blame('change', `${this.#told(change)} has a correlation id that was never sent`);
    } else {
      if (!this.#goesOn(found)) this.#begin(found, Number(change.revision));
      this.#fit(change);
    }
  }

  #setUp(change: Change): void {
    this.#close();
    this.#caller = change.caller;
    if (!SET_UP.has(change.kind)) this.#blame('change', `${this.#told(change)} is none that sets a project up`);
  }

  #goesOn({ operation, attempt }: Try): boolean {
    const open = this.#open;
    return (
      open?.operation === operation && open.attempt === attempt && (open.read < open.expected.length || open.read === 0)
    );
  }

  #begin(found: Try, revision: number): void {
    this.#close();
    const asked = this.#history.ledger.asked(found.operation);
    this.#open = { ...found, asked, expected: expectedOf(asked), first: revision, read: 0 };
  }

  /** Holds a change against what its operation asked for. */
  #fit(change: Change): void {
    const open = this.#open as Open;
    const { asked, expected, operation } = open;
    const entry = open.read;
    open.read += 1;
    const wanted = expected[entry];
    if (wanted === undefined || wanted.kind !== change.kind) {
      this.#blame('change', `${this.#told(change)} is none that operation ${operation} ${asked.kind} makes`);
    }
    if (asked.project !== ANY_PROJECT && asked.project !== this.#place.index) {
      this.#blame('foreign', `${this.#told(change)} was asked for in another project`);
    }
    this.#fitCaller(change, asked);
    this.#growth.add(change, { operation, entry, wanted });
  }

  #fitCaller(change: Change, { actor, kind }: Asked): void {
    const user = actor === 'system' ? '' : this.#place.users[actor];
    if (change.actorId !== user || change.caller !== this.#caller) {
      this.#blame('change', `${this.#told(change)} is not by the ${actor} who asked for ${kind}`);
    }
  }

  /** All changes of the open operation have been read. */
  #close(): void {
    const open = this.#open;
    this.#open = null;
    if (open === null) return;
    const { operation, first, read, expected, asked } = open;
    const last = first + read - 1;
    const where = `operation ${operation} ${asked.kind}: ${this.#at(first)}`;
    if (read < expected.length) this.#blame('change', `${where}: ${read} of its ${expected.length} changes are there`);
    const call = this.#callOf(open, where);
    if (this.#applied.has(operation)) {
      this.#blame('twice', `${where}, and revision ${this.#applied.first(operation)} before it`);
    } else {
      this.#applied.add(operation, call, this.#place.index, first, last);
    }
  }

  #callOf({ operation, attempt }: Try, where: string): number {
    const { ledger } = this.#history;
    for (const call of ledger.callsOf(operation)) {
      if (ledger.attempt(call) !== attempt) continue;
      if (ledger.outcome(call) === 'refused') this.#blame('refused', `${where} by attempt ${attempt}`);
      return call;
    }
    this.#blame('change', `${where} by an attempt that was never made`);
    return 0;
  }

  #at(revision: number): string {
    return nameOf(this.#place, revision);
  }

  #told({ revision, kind }: Change): string {
    return `${this.#at(Number(revision))} ${ChangeKind[kind]}`;
  }

  #blame(...fault: Parameters<Faults['add']>): void {
    this.#faults.add(...fault);
  }
}
