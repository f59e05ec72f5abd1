import type { Client } from 'pg';
import { SEALED_COLUMNS } from './columns.ts';

/** How many rows of a column are under a key. */
interface KeyUse {
  readonly column: string;
  readonly key: number;
  readonly rows: number;
  readonly bytes: number;
}

export interface KeyStatus {
  /** The keys a service must have. */
  readonly keys: readonly { readonly key: number; readonly retired: boolean }[];
  readonly used: readonly KeyUse[];
}

/** Which keys the database is sealed with. @param client the owner's */
export async function keyStatus(client: Client): Promise<KeyStatus> {
  const keys = await client.query<{ key: number; retired: boolean }>(
    'select key_id as key, retired from sealing_keys order by key_id',
  );
  const used: KeyUse[] = [];
  for (const { table, column } of SEALED_COLUMNS) {
    const { rows } = await client.query<{ key: number; rows: string; bytes: string }>(
      `select sealing_key(${column}) as key, count(*) as rows, sum(octet_length(${column})) as bytes
         from ${table} where ${column} is not null group by 1 order by 1`,
    );
    for (const { key, ...sums } of rows) {
      used.push({ column: `${table}.${column}`, key, rows: Number(sums.rows), bytes: Number(sums.bytes) });
    }
  }
  return { keys: keys.rows, used };
}
