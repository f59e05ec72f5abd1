import type { Client } from 'pg';

/** The rows of a query, some at a time, in the transaction that is open. One is read at a time on a connection. */
export async function* readCursor<T extends object>(
  client: Client,
  query: string,
  values: readonly unknown[],
  fetch: number,
): AsyncGenerator<T> {
  await client.query(`declare reading no scroll cursor for ${query}`, [...values]);
  for (;;) {
    const { rows } = await client.query<T>(`fetch ${fetch} from reading`);
    yield* rows;
    if (rows.length < fetch) break;
  }
  await client.query('close reading');
}
