const GOLDEN = 0x9e3779b9;

/** Decisions that a seed makes again: mulberry32, which is small, fast, and good enough to choose work by. No secret comes from it. */
export class Random {
  #state: number;

  /** @param stream of one seed: each has numbers of its own */
  constructor(seed: number, stream = 0) {
    this.#state = (Math.imul(seed ^ 0x5bd1e995, GOLDEN) + Math.imul(stream + 1, 0x85ebca6b)) >>> 0;
  }

  /** From 0 to below 1. */
  next(): number {
    this.#state = (this.#state + GOLDEN) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 to below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  chance(share: number): boolean {
    return this.next() < share;
  }

  /** @throws Error when there is nothing to pick from */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error('there is nothing to pick from');
    return items[this.below(items.length)] as T;
  }
}
