import type { Client } from 'pg';
import { waitForLock } from '../db/advisory.ts';
import type { KeyRing } from './ring.ts';
import { retire } from './rotate.ts';
import { opensSecret } from './secret.ts';
import type { KeyRow } from './sql.ts';
import { keyStatus } from './status.ts';

export interface DropOptions {
  /** The owner's, direct: the lock that keeps a rotation away lives in the session. */
  readonly client: Client;
  readonly ring: KeyRing;
  /** The key's id; the ring need not have it. */
  readonly key: number;
  readonly log: { info(message: string): void };
}

/**
 * Takes a key out of the database under which nothing is sealed: one that was lost, or that nobody ever had.
 * @throws Error when something is sealed under it, or no other key of the ring opens the database's secret
 */
export async function dropKey({ client, ring, key, log }: DropOptions): Promise<void> {
  await waitForLock(client, 'rotate', { log });
  const { rows } = await client.query<KeyRow>('select key_id, secret, retired from sealing_keys');
  if (rows.every(({ key_id }) => key_id !== key)) {
    throw new Error(`the database knows no key ${key}; \`jeex-persistence keys status\` shows those it knows`);
  }
  if (!rows.some((row) => row.key_id !== key && opensSecret(ring, row))) {
    throw new Error(`no other key of ENCRYPTION_KEYS opens the database's secret, which would be lost with key ${key}`);
  }
  await refuseUsed(client, key);
  await retire(client, [key]);
  try {
    // What was being written before it was retired; nothing can come after it.
    await refuseUsed(client, key);
  } catch (error) {
    await client.query('update sealing_keys set retired = false where key_id = $1', [key]);
    throw error;
  }
  await client.query('delete from sealing_keys where key_id = $1', [key]);
}

async function refuseUsed(client: Client, key: number): Promise<void> {
  const { used } = await keyStatus(client);
  const use = used.find((one) => one.key === key);
  if (use === undefined) return;
  const rows = use.rows === 1 ? '1 row' : `${use.rows} rows`;
  throw new Error(
    `${rows} of ${use.column} ${use.rows === 1 ? 'is' : 'are'} sealed under key ${key}: ` +
      '`jeex-persistence keys rotate` takes it out, once it has sealed them under another',
  );
}
