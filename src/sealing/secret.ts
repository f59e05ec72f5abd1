import { randomBytes } from 'node:crypto';
import type { Database } from '../db/pool.ts';
import { secretUnder } from './identity.ts';
import type { KeyRing } from './ring.ts';
import * as statements from './sql.ts';

const SECRET_BYTES = 32;

/** A round registers the key, or finds that another process was first with the secret, or with the key. */
const ROUNDS = 4;

/**
 * The database's secret: one for its life, the same for every replica, whatever keys seal it. A new database gets one. The
 * key that seals is registered, so that from now on no service starts without it; the others seal nothing new.
 * @throws Error saying which key is missing, wrong or retired, and what to do
 */
export const openSecret = async (db: Database, ring: KeyRing): Promise<Buffer> => {
  const [sealing] = ring.ids;
  for (let round = 0; round < ROUNDS; round += 1) {
    const rows = await db.run(statements.sealingKeys, {});
    const secret = openedBy(ring, rows);
    if (secret !== null && rows.some(({ key_id }) => key_id === sealing)) return secret;
    const envelope = ring.seal(secret ?? randomBytes(SECRET_BYTES), secretUnder(sealing));
    await db.run(statements.registerKey, { key_id: sealing, secret: envelope, first: secret === null });
  }
  throw new Error('the keys of the database are being changed while this starts: start again');
};

/**
 * Holds a ring against the database, for who seals beside its services: unlike a start, it makes no key theirs.
 * @throws Error saying what to do, when keys are missing or wrong, or the first one is none of the services'
 */
export const checkRing = async (db: Database, ring: KeyRing): Promise<void> => {
  const rows = await db.run(statements.sealingKeys, {});
  openedBy(ring, rows);
  const [sealing] = ring.ids;
  const known = rows.map(({ key_id }) => key_id);
  if (known.includes(sealing)) return;
  throw new Error(
    known.length === 0
      ? 'the database has no key yet: start its service once'
      : `ENCRYPTION_KEYS begins with key ${sealing}, which the services here do not have: put ${known.join(' or ')} first`,
  );
};

/**
 * The secret that every row holds; null without rows.
 * @throws Error saying which key is missing, wrong or retired, and what to do
 */
export const openedBy = (ring: KeyRing, rows: readonly statements.KeyRow[]): Buffer | null => {
  const missing = rows.filter(({ key_id }) => !ring.ids.includes(key_id)).map(({ key_id }) => key_id);
  if (missing.length > 0) {
    throw new Error(
      `the key ring lacks ${missing.length === 1 ? 'key' : 'keys'} ${missing.join(', ')}, which this database is sealed with: ` +
        'add what is missing to ENCRYPTION_KEYS; a key under which nothing is sealed (`jeex-persistence keys status`) ' +
        `goes with \`jeex-persistence keys drop ${missing[0]}\``,
    );
  }
  const [secret = null, ...others] = rows.map((row) => openRow(ring, row));
  if (secret !== null && others.some((other) => !other.equals(secret))) {
    throw new Error('the rows of sealing_keys hold different secrets: restore the table from a backup');
  }
  if (rows.some(({ key_id, retired }) => retired && key_id === ring.ids[0])) {
    throw new Error(
      `key ${ring.ids[0]} was retired by \`jeex-persistence keys rotate\`: put the new key first in ENCRYPTION_KEYS`,
    );
  }
  return secret;
};

const openRow = (ring: KeyRing, { key_id, secret }: statements.KeyRow): Buffer => {
  try {
    return ring.open(secret, secretUnder(key_id));
  } catch (cause) {
    const message =
      `key ${key_id} of the key ring is not the key ${key_id} this database was sealed with: ` +
      'configure the one it was; a new key needs a new id; if nothing is sealed under it ' +
      `(\`jeex-persistence keys status\`), it goes with \`jeex-persistence keys drop ${key_id}\``;
    throw new Error(message, { cause });
  }
};

/** Whether the ring has what a row's secret is sealed under. */
export const opensSecret = (ring: KeyRing, row: statements.KeyRow): boolean => {
  try {
    return openRow(ring, row).length === SECRET_BYTES;
  } catch {
    return false;
  }
};
