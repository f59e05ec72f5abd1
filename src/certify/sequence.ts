import { ChainWalk } from '../changes/chain.ts';
import { linkOf } from '../demo/record.ts';
import type { Change } from '../gen/jeex/persistence/v1/change_service_pb.js';
import type { Faults } from './faults.ts';
import type { Place } from './history.ts';

/** What one watcher has seen of one project: each change once, in order, as it is recorded. */
export class Sequence {
  readonly place: Place;
  readonly #watcher: number;
  readonly #faults: Faults;
  readonly #chain = new ChainWalk();
  /** The last revision seen: where the watch is resumed. */
  revision = 0;
  /** The last change that came, and the end of its chain. */
  seen = { revision: 0, chain: 0 };

  constructor(place: Place, watcher: number, faults: Faults) {
    this.place = place;
    this.#watcher = watcher;
    this.#faults = faults;
  }

  /** A change came. */
  take(change: Change): void {
    const revision = Number(change.revision);
    if (change.projectId !== this.place.id) {
      this.#faults.add('foreign', `${this.#name} was sent a change of ${change.projectId}`);
    } else if (revision <= this.revision) {
      this.#faults.add('eventTwice', `${this.#name} was sent revision ${revision} after ${this.revision}`);
    } else {
      this.#follow(change, revision);
    }
  }

  #follow(change: Change, revision: number): void {
    this.#missUpTo(revision - 1);
    this.revision = revision;
    this.seen = { revision, chain: Number.parseInt(change.chain.slice(-8), 16) };
    const feed = { head: change.revision, head_chain: Buffer.from(change.chain, 'hex'), earliest_revision: 0n };
    this.#chain.read(feed, [linkOf(change)]);
  }

  /** A heartbeat came, which says that everything up to its revision was sent. */
  beat(revision: number): void {
    this.#missUpTo(revision);
  }

  /** The watch is over. @param goal the revision it had to reach */
  end(goal: number): void {
    this.#missUpTo(goal);
    for (const { fault, text } of this.#chain.end().faults) {
      if (fault !== 'missing') this.#faults.add('eventOther', `${this.#name}: ${text}`);
    }
  }

  #missUpTo(revision: number): void {
    if (revision <= this.revision) return;
    this.#faults.add('eventMissed', `${this.#name} was not sent revisions ${this.revision + 1} to ${revision}`);
    this.revision = revision;
  }

  get #name(): string {
    return `watcher ${this.#watcher} of project ${this.place.id}`;
  }
}
