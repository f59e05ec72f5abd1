import pg, { type Client, type Connection, type Submittable } from 'pg';
import { TYPES } from './pg-types.ts';
import type { Prepared } from './prepared.ts';

/** A connection of `pg`, as far as a statement is sent on one. */
interface Wire {
  readonly stream: { cork(): void; uncork(): void };
  readonly parsedStatements: Readonly<Record<string, string>>;
  parse(statement: Prepared): void;
  bind(portal: { readonly statement: string; readonly values: readonly unknown[] }): void;
  describe(portal: { readonly type: 'P' }): void;
  execute(portal: object): void;
  sync(): void;
}

/** How the columns of a prepared statement become a row. */
interface Shape {
  readonly names: readonly string[];
  readonly parsers: readonly ((text: string) => unknown)[];
}

/** What a connection knows of the statements it has prepared, by their names there. */
export type Shapes = Map<string, Shape>;

interface RowDescription {
  readonly fields: readonly { readonly name: string; readonly dataTypeID: number }[];
}

type Row = Record<string, unknown>;

/** Rows came in other columns than the connection was told before: behind a pooler, from a session that prepared it later. */
export class Misdescribed extends Error {}

const NO_SHAPE: Shape = { names: [], parsers: [] };

// As `pg` itself has it done, which its types do not tell of.
const { prepareValue } = (pg as unknown as { readonly utils: { prepareValue(value: unknown): string | Buffer | null } })
  .utils;

/**
 * One statement on its way. Unlike `pg`'s own query it asks for a description of its columns but once on a connection, where
 * its text fixes them: that is a tenth of what a point read costs PostgreSQL and the service.
 */
class Exchange implements Submittable {
  readonly name: string;
  readonly text: string;
  readonly #values: readonly unknown[];
  readonly #shapes: Shapes | null;
  readonly #resolve: (rows: Row[]) => void;
  readonly #reject: (error: unknown) => void;
  readonly #rows: Row[] = [];
  #shape: Shape = NO_SHAPE;
  #failure: unknown = null;

  constructor(
    { name, text }: Prepared,
    values: readonly unknown[],
    shapes: Shapes | null,
    resolve: (rows: Row[]) => void,
    reject: (error: unknown) => void,
  ) {
    this.name = name;
    this.text = text;
    this.#values = values;
    this.#shapes = shapes;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Called by `pg` when the connection is free. @returns why it cannot be sent */
  submit(connection: Connection): Error | null {
    const { name, text } = this;
    const wire = connection as unknown as Wire;
    const shape = this.#shapes?.get(name);
    let values: readonly unknown[];
    try {
      values = this.#values.map(prepareValue);
    } catch (error) {
      return error as Error;
    }
    if (shape) this.#shape = shape;
    wire.stream.cork();
    if (wire.parsedStatements[name] === undefined) wire.parse({ name, text });
    wire.bind({ statement: name, values });
    if (!shape) wire.describe({ type: 'P' });
    wire.execute({});
    wire.sync();
    wire.stream.uncork();
    return null;
  }

  handleRowDescription({ fields }: RowDescription): void {
    this.#shape = {
      names: fields.map(({ name }) => name),
      parsers: fields.map(({ dataTypeID }) => TYPES.getTypeParser(dataTypeID, 'text')),
    };
    this.#shapes?.set(this.name, this.#shape);
  }

  handleDataRow({ fields }: { readonly fields: readonly (string | null)[] }): void {
    const { names, parsers } = this.#shape;
    try {
      if (fields.length !== names.length) throw new Misdescribed(`${fields.length} columns, not ${names.length}`);
      const row: Row = {};
      for (let i = 0; i < names.length; i++) {
        const text = fields[i] as string | null;
        row[names[i] as string] = text === null ? null : parsers[i]?.(text);
      }
      this.#rows.push(row);
    } catch (error) {
      this.#shapes?.delete(this.name);
      this.#failure = error;
    }
  }

  handleCommandComplete(): void {}

  handleEmptyQuery(): void {}

  handleError(error: unknown): void {
    this.#reject(error);
  }

  handleReadyForQuery(): void {
    if (this.#failure === null) this.#resolve(this.#rows);
    else this.#reject(this.#failure);
  }
}

/**
 * Runs a prepared statement on a connection.
 * @param shapes what the connection knows of statements whose text fixes their columns; null for one whose text does not
 * @returns its rows, as `TYPES` has the values
 * @throws DatabaseError of PostgreSQL, or the error that the connection ended with
 */
export const exchange = (
  client: Client,
  prepared: Prepared,
  values: readonly unknown[],
  shapes: Shapes | null,
): Promise<Row[]> =>
  new Promise((resolve, reject) => void client.query(new Exchange(prepared, values, shapes, resolve, reject)));
