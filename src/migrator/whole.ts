import type { Client } from 'pg';
import { TransactionEnded } from './errors.ts';
import { patiently, TABLE_WAITS_MS } from './patience.ts';
import { note, type Step } from './step.ts';
import { transaction } from './transaction.ts';

/** Runs a script and its version row in one transaction: a crash leaves both or neither. */
export async function runWhole(step: Step): Promise<void> {
  const { client, script } = step;
  await patiently(step, TABLE_WAITS_MS, async (lockTimeoutMs) => {
    const started = performance.now();
    await transaction(client, lockTimeoutMs, async () => {
      const before = await transactionId(client);
      await client.query(script.sql);
      if ((await transactionId(client)) !== before) throw new TransactionEnded();
      await note(step, started);
    });
  });
}

async function transactionId(client: Client): Promise<string | undefined> {
  const result = await client.query<{ id: string }>('select pg_current_xact_id()::text as id');
  return result.rows[0]?.id;
}
