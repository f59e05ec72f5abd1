import { type Check, type Fault, failed } from './check.ts';
import { withClient } from './patient.ts';
import { settingsOf } from './settings.ts';

const SCRAM = 'scram-sha-256';

/** The roles whose stored verifier is an MD5; null when this role may not look. */
const readMd5 = (adminUrl: string): Promise<readonly string[] | null> =>
  withClient(adminUrl, async (client) => {
    const { rows: may } = await client.query<{ may: boolean }>(
      `select has_table_privilege('pg_authid', 'select') as may`,
    );
    if (!may[0]?.may) return null;
    const { rows } = await client.query<{ name: string }>(
      `select rolname::text as name from pg_authid where rolpassword like 'md5%' order by 1`,
    );
    return rows.map(({ name }) => name);
  });

/** How passwords are kept: no MD5, which can be used without being broken. */
export const passwords: Check = {
  group: 'roles',
  name: 'passwords',
  run: async (patient) => {
    const { password_encryption: kind = '' } = await settingsOf(await patient.app(), ['password_encryption']);
    const { adminUrl } = await patient.database();
    const md5 = adminUrl === null ? null : await readMd5(adminUrl);
    const faults: Fault[] = (md5 ?? []).map((name) =>
      failed(`${name} has an MD5 of its password`, `set it again: alter role ${name} password '…'`),
    );
    if (kind !== SCRAM) {
      faults.push(failed(`password_encryption is ${kind}`, `set password_encryption = '${SCRAM}' in postgresql.conf`));
    }
    const stored = md5 === null ? 'those stored are seen with ADMIN_DATABASE_URL of a superuser' : 'as stored too';
    return { seen: `${kind}; ${stored}`, faults };
  },
};
