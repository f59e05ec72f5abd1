import { Column } from './column.ts';

/** Where, and by which call, each operation took effect, over all projects. */
export class Applications {
  readonly #first = new Column('u32');
  readonly #last = new Column('u32');
  readonly #call = new Column('u32');
  readonly #project = new Column('u16');

  /** @param call 0: one that the ledger does not know */
  add(operation: number, call: number, project: number, first: number, last: number): void {
    this.#first.set(operation, first);
    this.#last.set(operation, last);
    this.#call.set(operation, call);
    this.#project.set(operation, project);
  }

  has(operation: number): boolean {
    return this.#first.at(operation) !== 0;
  }

  /** The revisions it made; 0 for none. */
  first(operation: number): number {
    return this.#first.at(operation);
  }

  last(operation: number): number {
    return this.#last.at(operation);
  }

  call(operation: number): number {
    return this.#call.at(operation);
  }

  project(operation: number): number {
    return this.#project.at(operation);
  }
}
