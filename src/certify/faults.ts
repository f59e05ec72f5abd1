/** Every promise that is checked, with what is wrong where it does not hold, in the order of the page. */
export const PROMISES = {
  lost: 'acknowledged writes lost',
  twice: 'writes applied twice',
  refused: 'refused writes applied',
  change: 'changes that nobody asked for',
  revisionGap: 'revision gaps',
  chain: 'breaks in the chain of changes',
  versionGap: 'version gaps',
  row: 'rows missing, or other than recorded',
  foreign: 'foreign rows',
  order: 'writes against the order of time',
  stale: 'reads against the order of time',
  read: 'reads that no revision shows',
  content: 'contents other than their hash, or than written',
  replay: 'retries answered otherwise than the first success',
  lease: 'leases held twice, or without their token',
  eventMissed: 'change events missed',
  eventTwice: 'change events sent twice or out of order',
  eventOther: 'change events other than recorded',
} as const;

export type Promised = keyof typeof PROMISES;

/** How many faults of one promise are told; the rest is counted. */
const MOST_TOLD = 10;

/** What was found wrong: counted, and the first of each promise told. */
export class Faults {
  readonly #counts = new Map<Promised, number>();
  readonly #told = new Map<Promised, string[]>();

  add(promise: Promised, text: string): void {
    const count = this.count(promise) + 1;
    this.#counts.set(promise, count);
    if (count <= MOST_TOLD) this.#told.set(promise, [...this.told(promise), text]);
  }

  count(promise: Promised): number {
    return this.#counts.get(promise) ?? 0;
  }

  told(promise: Promised): readonly string[] {
    return this.#told.get(promise) ?? [];
  }

  get total(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }
}
