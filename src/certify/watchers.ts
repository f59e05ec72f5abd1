import { ChangeService, type WatchProjectResponse } from '../gen/jeex/persistence/v1/change_service_pb.js';
import { Door, Failed } from './door.ts';
import type { Faults } from './faults.ts';
import type { Place, Watched } from './history.ts';
import type { CertifyOptions, RetryPolicy } from './options.ts';
import { backOff } from './patience.ts';
import { Random } from './random.ts';
import { Sequence } from './sequence.ts';
import type { Tally } from './tally.ts';

/** How long a watch lasts before it is cut. */
const SHORTEST_MS = 200;
const LONGEST_MS = 4_000;
/** Streams of the seed for the watchers. */
const WATCHERS = 0x20000;

const { watchProject, watchProjects } = ChangeService.method;

/** Watchers at work. */
export interface Watching {
  /** Rejects when a watcher failed in a way no fault explains. */
  readonly ended: Promise<void>;
  /**
   * Lets every watcher reach these revisions, by project, then ends it; one that does not within `giveUpMs` has missed the rest.
   * @returns what each has seen, in the end
   */
  catchUp(goals: ReadonlyMap<string, number>): Promise<readonly Watched[]>;
  /** Ends them where they are. */
  cancel(): void;
}

interface Shared {
  readonly places: readonly Place[];
  readonly faults: Faults;
  readonly tally: Tally;
  readonly retry: RetryPolicy;
}

/** One watcher: of one project, or of all of them on one stream; cut, and resumed with its cursors. */
class Watcher {
  readonly sequences: readonly Sequence[];
  readonly #door: Door;
  readonly #random: Random;
  readonly #shared: Shared;
  readonly #actor: string | undefined;
  #cut = new AbortController();
  #goals: ReadonlyMap<string, number> | null = null;
  #givenUp = false;

  constructor(shared: Shared, door: Door, random: Random, number: number) {
    const { places, faults } = shared;
    const place = places[number % places.length] as Place;
    // Every third one watches all of them, as the system.
    const watched = number % 3 === 2 ? places : [place];
    this.sequences = watched.map((each) => new Sequence(each, number, faults));
    this.#actor = watched.length === 1 ? place.users.viewer : undefined;
    this.#shared = shared;
    this.#door = door;
    this.#random = random;
  }

  async run(): Promise<void> {
    for (let tries = 0; !this.#isDone(); ) {
      const seen = this.#shared.tally.events;
      const failed = await this.#watch();
      this.#shared.tally.resumed += 1;
      tries = this.#shared.tally.events > seen ? 0 : tries + 1;
      if (failed) await backOff(this.#shared.retry, tries, this.#random, failed.pushbackMs);
    }
    for (const sequence of this.sequences) sequence.end(this.#goals?.get(sequence.place.id) ?? 0);
    this.#door.close();
  }

  /** From now on it ends once it has seen as much. */
  aim(goals: ReadonlyMap<string, number>): void {
    this.#goals = goals;
    this.#cut.abort();
    setTimeout(() => this.giveUp(), this.#shared.retry.giveUpMs).unref();
  }

  /** It ends, however far it is. */
  giveUp(): void {
    this.#givenUp = true;
    this.#cut.abort();
  }

  /** Watches until it is cut, done, or fails. @returns the failure */
  async #watch(): Promise<Failed | null> {
    this.#cut = new AbortController();
    const { signal } = this.#cut;
    const timer = setTimeout(() => this.#cut.abort(), SHORTEST_MS + this.#random.below(LONGEST_MS));
    try {
      for await (const { event } of this.#events(signal)) {
        this.#take(event);
        if (this.#isDone()) return null;
      }
      return null;
    } catch (error) {
      if (signal.aborted) return null;
      if (!(error instanceof Failed)) throw error;
      this.#shared.tally.fail(error.reason);
      return error;
    } finally {
      clearTimeout(timer);
    }
  }

  #events(signal: AbortSignal) {
    const cursors = this.sequences.map(({ place, revision }) => ({
      projectId: place.id,
      afterRevision: BigInt(revision),
    }));
    const envelope = { actor: this.#actor };
    const [first] = cursors;
    if (cursors.length === 1 && first) return this.#door.stream(watchProject, first, envelope, signal);
    return this.#door.stream(watchProjects, { cursors }, envelope, signal);
  }

  #take(event: Event): void {
    if (event.case === undefined) return;
    const { value } = event;
    const [only] = this.sequences;
    const sequence =
      this.sequences.length === 1 ? only : this.sequences.find(({ place }) => place.id === value.projectId);
    if (event.case === 'change') this.#shared.tally.events += 1;
    if (sequence === undefined) {
      this.#shared.faults.add('foreign', `a watcher was sent an event of project ${value.projectId}`);
    } else if (event.case === 'heartbeat') {
      sequence.beat(Number(value.revision));
    } else {
      sequence.take(event.value);
    }
  }

  #isDone(): boolean {
    const goals = this.#goals;
    if (this.#givenUp || goals === null) return this.#givenUp;
    return this.sequences.every(({ place, revision }) => revision >= (goals.get(place.id) ?? 0));
  }
}

type Event = WatchProjectResponse['event'];

/** Starts the watchers, each on a channel of its own. */
export const startWatching = (shared: Shared, { connect, token, seed, watchers }: CertifyOptions): Watching => {
  const all = Array.from(
    { length: watchers },
    (_, number) => new Watcher(shared, new Door(connect(), token), new Random(seed, WATCHERS + number), number),
  );
  const ended = Promise.all(all.map((watcher) => watcher.run())).then(() => {});
  return {
    ended,
    cancel: () => {
      for (const watcher of all) watcher.giveUp();
    },
    catchUp: async (goals) => {
      for (const watcher of all) watcher.aim(goals);
      await ended;
      return all.flatMap(({ sequences }) => sequences.map(({ place, seen }) => ({ place, ...seen })));
    },
  };
};
