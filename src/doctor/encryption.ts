import { loadRing } from '../sealing/ring.ts';
import { isSealed } from '../sealing/sealing.ts';
import { openedBy } from '../sealing/secret.ts';
import { sealingKeys } from '../sealing/sql.ts';
import { type Check, failed, faultOf } from './check.ts';
import { needSchema } from './schema.ts';

const UNSEALED = failed(
  'profiles, inputs or outputs of release 0.1.0 are not sealed yet',
  'run `jeex-persistence keys rotate`',
);

/** Whether the configured keys open what is sealed. Nothing is registered: that is for a service to do. */
export const encryption: Check = {
  group: 'database',
  name: 'encryption keys',
  run: async (patient) => {
    await needSchema(patient);
    const db = await patient.db();
    const { secrets } = await patient.database();
    const rows = await db.run(sealingKeys, {});
    const known = rows.map(({ key_id }) => key_id).join(', ');
    const seen = rows.length === 0 ? 'the database has none yet' : `the database is sealed under ${known}`;
    try {
      openedBy(loadRing(patient.config.encryptionKeys, secrets?.encryption ?? null), rows);
    } catch (error) {
      return { seen, faults: [faultOf(error, 'configure the keys this database is sealed with')] };
    }
    return { seen, faults: (await isSealed(db)) ? [] : [UNSEALED] };
  },
};
