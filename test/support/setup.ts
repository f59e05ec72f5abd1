import { createHmac, randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { type Embedded, startEmbedded } from '../../src/db/embedded.ts';
import { migrate } from '../../src/db/migrator.ts';
import { LOGINS, type Login } from '../../src/db/role-table.ts';
import { bootstrap } from '../../src/db/roles.ts';
import { CLUSTER_VARIABLE, type TestCluster } from './postgres.ts';

// One PostgreSQL for a whole test run: node:test loads this module in the runner, before it starts a process per file,
// and those inherit the runner's environment.
let embedded: Embedded | undefined;
let cluster: TestCluster | undefined;

/** Starts or finds PostgreSQL, and migrates the template that every test database is cloned from. */
export async function globalSetup(): Promise<void> {
  const given = process.env.TEST_DATABASE_URL;
  try {
    if (!given) embedded = await startEmbedded({ dataDir: '', ephemeral: true, log: { info: () => {} } });
    const adminUrl = embedded?.adminUrl ?? (given as string);
    const passwords = passwordsOf(adminUrl);
    const template = `jeex_template_${randomBytes(4).toString('hex')}`;
    const { ownerUrl } = await bootstrap(adminUrl, { database: template, passwords });
    cluster = { adminUrl, template, passwords };
    await migrate(ownerUrl, { mode: 'auto' });
    process.env[CLUSTER_VARIABLE] = JSON.stringify(cluster);
  } catch (error) {
    await globalTeardown();
    throw error;
  }
}

/** Stops the embedded PostgreSQL; leaves nothing on a given one but the roles, which other runs may use. */
export async function globalTeardown(): Promise<void> {
  if (embedded) return await embedded.stop();
  if (!cluster) return;
  const client = new Client({ connectionString: cluster.adminUrl });
  await client.connect();
  await client.query(`drop database if exists ${cluster.template} with (force)`);
  await client.end();
}

/** The same for every run on one server, since its roles are shared by runs at the same time. */
function passwordsOf(adminUrl: string): Record<Login, string> {
  const derive = (role: string) => createHmac('sha256', adminUrl).update(role).digest('hex');
  return Object.fromEntries(LOGINS.map((login) => [login, derive(login)])) as Record<Login, string>;
}
