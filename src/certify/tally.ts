/** What happened, counted as it happens. */
export class Tally {
  readonly #failures = new Map<string, number>();
  acknowledged = 0;
  reads = 0;
  retries = 0;
  replays = 0;
  /** Calls that had to be refused. */
  provoked = 0;
  events = 0;
  resumed = 0;

  /** @param reason of the contract, or `code N` */
  fail(reason: string): void {
    this.#failures.set(reason, (this.#failures.get(reason) ?? 0) + 1);
  }

  get failures(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#failures].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}
