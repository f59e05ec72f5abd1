import { createHmac, hkdfSync } from 'node:crypto';
import type { Database } from '../db/pool.ts';
import { tailOf } from './identity.ts';
import type { KeyRing } from './ring.ts';
import { openSecret } from './secret.ts';
import * as statements from './sql.ts';

/** What is sealed and signed with, once the key ring has opened the database's secret. */
export interface Sealing {
  readonly ring: KeyRing;
  /** Keys what is derived from requests: see `requestIdentifier`. */
  readonly requestKey: Buffer;
  /** Signs page tokens. */
  readonly pageTokenKey: Buffer;
  /** Tells whether a user's profile changes, without opening it. @param plain in its one canonical form */
  profileMac(plain: Uint8Array, user: string): Buffer;
}

/**
 * What a service needs before it serves.
 * @throws Error saying what to do: when a key is missing or wrong, or rows wait to be sealed
 */
export const openSealing = async (db: Database, ring: KeyRing): Promise<Sealing> => {
  if (!(await isSealed(db))) {
    throw new Error(
      'the database holds profiles, inputs or outputs of release 0.1.0, which are not sealed yet: ' +
        'run `jeex-persistence keys rotate`, which seals them, then start again',
    );
  }
  return sealingWith(ring, await openSecret(db, ring));
};

/** Whether the database knows that it holds no plain row, as release 0.1.0 wrote them: nothing is scanned. */
export const isSealed = async (db: Database): Promise<boolean> => {
  const [found] = await db.run(statements.allSealed, {});
  return found?.sealed ?? false;
};

/** Everything derived from the database's secret: none of it tells anything about the others or the secret. */
export const sealingWith = (ring: KeyRing, secret: Buffer): Sealing => {
  const derive = (use: string) => Buffer.from(hkdfSync('sha256', secret, '', `jeex-persistence ${use}`, 32));
  const macKey = derive('profile mac');
  return {
    ring,
    requestKey: derive('requests'),
    pageTokenKey: derive('page tokens'),
    profileMac: (plain, user) => createHmac('sha256', macKey).update(tailOf(user)).update(plain).digest(),
  };
};
