import type { Client, Connection, FieldDef, Submittable } from 'pg';

/** What PostgreSQL tells of a statement without running it. */
export interface Described {
  /** The parameters' types, `$1` first, as `pg_type.oid`. */
  readonly params: readonly number[];
  /** Those of what it answers. `tableID` and `columnID` name the column of a table that one is, `tableID` 0: none. */
  readonly columns: readonly FieldDef[];
}

/** Parse and Describe, which `pg` has no call of its own for: it takes anything that submits and hears the answers. */
class Description implements Submittable {
  readonly answer = Promise.withResolvers<Described>();
  readonly #text: string;
  #params: readonly number[] = [];
  #columns: readonly FieldDef[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  submit(connection: Connection): void {
    connection.once('parameterDescription', ({ dataTypeIDs }: { dataTypeIDs: readonly number[] }) => {
      this.#params = dataTypeIDs;
    });
    connection.parse({ name: '', text: this.#text, types: [] }, true);
    connection.describe({ type: 'S', name: '' }, true);
    connection.sync();
  }

  handleRowDescription({ fields }: { fields: readonly FieldDef[] }): void {
    this.#columns = fields;
  }

  handleError(error: Error): void {
    this.answer.reject(error);
  }

  handleReadyForQuery(): void {
    this.answer.resolve({ params: this.#params, columns: this.#columns });
  }
}

/** Has a statement prepared, by the connection's role and against its schema. @throws DatabaseError when it does not fit */
export const describeStatement = (client: Client, text: string): Promise<Described> =>
  client.query(new Description(text)).answer.promise;
