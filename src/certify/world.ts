import type { Place } from './history.ts';
import { TYPES } from './ledger.ts';
import type { Random } from './random.ts';

/** Things that wait for somebody to go on with; a full one forgets one for each that comes. */
class Pool<T> {
  readonly #items: T[] = [];
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#items.length;
  }

  put(item: T, random: Random): void {
    if (this.#items.length < this.#most) this.#items.push(item);
    else this.#items[random.below(this.#most)] = item;
  }

  /** Any of them, which stays; undefined when there is none. */
  look(random: Random): T | undefined {
    return this.#items[random.below(this.#items.length)];
  }

  /** Any of them, which is nobody else's then. */
  take(random: Random): T | undefined {
    const place = random.below(this.#items.length);
    const last = this.#items.pop();
    if (last === undefined || place === this.#items.length) return last;
    const item = this.#items[place];
    this.#items[place] = last;
    return item;
  }
}

/** A run or an export, by the code of what created it. */
export interface Known {
  readonly code: number;
  readonly id: string;
}

export interface Held extends Known {
  readonly token: string;
}

const MOST_KNOWN = 200;

/** The longest lease there is, so that it is nearly always given back, and does not run out. */
export const LEASE_SECONDS = 3600;

/** What the callers know of a project, to choose by: what they were told, which may be old already. */
export class Surroundings {
  readonly place: Place;
  readonly heads: number[] = TYPES.map(() => 0);
  /** The highest revision that anybody was told. */
  revision = 0;
  readonly pending = new Pool<Known>(MOST_KNOWN);
  readonly running = new Pool<Held>(MOST_KNOWN);
  readonly runs = new Pool<Known>(MOST_KNOWN);
  readonly waiting = new Pool<Known>(MOST_KNOWN);
  readonly worked = new Pool<Held>(MOST_KNOWN);
  readonly completed = new Pool<Known>(MOST_KNOWN);
  readonly exports = new Pool<Known>(MOST_KNOWN);

  constructor(place: Place) {
    this.place = place;
  }

  learn(type: number, version: number, revision: number): void {
    this.heads[type] = Math.max(this.heads[type] ?? 0, version);
    this.revision = Math.max(this.revision, revision);
  }
}
