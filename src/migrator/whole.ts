import type { Client } from 'pg';
import { patiently } from './patience.ts';
import { note, type Step, transaction } from './step.ts';

/** Runs a script and its version row in one transaction: a crash leaves both or neither. */
export async function runWhole(step: Step): Promise<void> {
  const { client, script, log } = step;
  await patiently(client, log, async (lockTimeoutMs) => {
    const started = performance.now();
    await transaction(client, lockTimeoutMs, async () => {
      const before = await transactionId(client);
      await client.query(script.sql);
      if ((await transactionId(client)) !== before) throw new Error('it must leave the transaction alone');
      await note(step, started);
    });
  });
}

async function transactionId(client: Client): Promise<string | undefined> {
  const result = await client.query<{ id: string }>('select pg_current_xact_id()::text as id');
  return result.rows[0]?.id;
}
