import type { Client } from 'pg';

/**
 * Whether a pooler stands between. PostgreSQL gives each session its process id with the key for cancelling, and a pooler, whose
 * client has no process of its own, makes one up: only by 1 chance in 2^32 are they the same then.
 */
export const isPooled = async (client: Client): Promise<boolean> => {
  const { processID } = client as unknown as { processID: number | null };
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
  return rows[0]?.pid !== processID;
};
