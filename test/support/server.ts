import { after } from 'node:test';
import { startEmbedded } from '../../src/db/embedded.ts';
import type { Passwords } from '../../src/db/role-table.ts';
import { bootstrap, withDatabase, withLogin } from '../../src/db/roles.ts';
import { migrate } from '../../src/migrator/migrate.ts';
import type { TestDatabase } from './postgres.ts';

/** A PostgreSQL of one's own, empty, for tests that alter roles, which all databases of a server share. */
export const useServer = async (): Promise<{ adminUrl: string }> => {
  const { adminUrl, stop } = await startEmbedded({ dataDir: '', ephemeral: true, log: { info: () => {} } });
  after(stop);
  return { adminUrl };
};

/** The service's database on such a server, migrated. It goes with the server. */
export const prepareServer = async (adminUrl: string, passwords: Passwords): Promise<TestDatabase> => {
  const name = 'jeex';
  const { ownerUrl, appUrl } = await bootstrap(adminUrl, { database: name, passwords });
  await migrate(ownerUrl, { mode: 'auto' });
  return {
    adminUrl: withDatabase(adminUrl, name),
    ownerUrl,
    appUrl,
    urlAs: (login) => withLogin(adminUrl, name, `jeex_${login}`, passwords[login] ?? ''),
    name,
    drop: async () => {},
  };
};
