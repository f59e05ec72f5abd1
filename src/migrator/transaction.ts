import type { Client } from 'pg';

/** Runs work in a transaction, with so long a wait for each lock at most. @throws what the work threw, rolled back */
export async function transaction<T>(client: Client, lockTimeoutMs: number, work: () => Promise<T>): Promise<T> {
  await client.query(`begin; set local lock_timeout = ${lockTimeoutMs}`);
  try {
    const result = await work();
    await client.query('commit');
    return result;
  } catch (error) {
    // A lost connection has rolled back by itself.
    await client.query('rollback').catch(() => {});
    throw error;
  }
}
