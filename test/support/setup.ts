import { createHmac, randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { startEmbedded } from '../../src/db/embedded.ts';
import { LOGINS, type Login } from '../../src/db/role-table.ts';
import { bootstrap } from '../../src/db/roles.ts';
import { migrate } from '../../src/migrator/migrate.ts';
import { CLUSTER_VARIABLE, type TestCluster, type TestServer } from './postgres.ts';

// One server for a whole test run: node:test loads this module in the runner, before it starts a process per file, and
// those inherit the runner's environment.
let server: (TestServer & { stop?: () => Promise<void> }) | undefined;
let templates: string[] = [];

/** Starts or finds PostgreSQL, and migrates the template that every test database is cloned from, and the bare one for empty ones. */
export async function globalSetup(): Promise<void> {
  try {
    server = await provide();
    const { adminUrl, passwords, pooler } = server;
    const run = randomBytes(4).toString('hex');
    const [template, emptyTemplate] = [`jeex_template_${run}`, `jeex_empty_${run}`];
    templates = [template, emptyTemplate];
    await bootstrap(adminUrl, { database: emptyTemplate, passwords });
    const { ownerUrl } = await bootstrap(adminUrl, { database: template, passwords });
    await migrate(ownerUrl, { mode: 'auto' });
    const cluster: TestCluster = { adminUrl, template, emptyTemplate, passwords, pooler };
    process.env[CLUSTER_VARIABLE] = JSON.stringify(cluster);
  } catch (error) {
    await globalTeardown();
    throw error;
  }
}

/** Ends what was started; leaves nothing on a given server but the roles, which other runs may use. */
export async function globalTeardown(): Promise<void> {
  if (server?.stop) return await server.stop();
  if (server === undefined) return;
  const client = new Client({ connectionString: server.adminUrl });
  await client.connect();
  for (const template of templates) await client.query(`drop database if exists ${template} with (force)`);
  await client.end();
}

/** In this order: PostgreSQL behind PgBouncer (`TEST_PGBOUNCER=true`), the one of `TEST_DATABASE_URL`, an embedded one. */
async function provide(): Promise<NonNullable<typeof server>> {
  const { TEST_PGBOUNCER, TEST_DATABASE_URL: given } = process.env;
  if (TEST_PGBOUNCER && TEST_PGBOUNCER !== 'false') {
    // Loaded here alone, since what drives containers takes its time to load.
    const { buildImages, startPooled } = await import('./pooled.ts');
    await buildImages();
    return await startPooled();
  }
  if (given) return { adminUrl: given, passwords: passwordsOf(given), pooler: null };
  const { adminUrl, stop } = await startEmbedded({ dataDir: '', ephemeral: true, log: { info: () => {} } });
  return { adminUrl, passwords: passwordsOf(adminUrl), pooler: null, stop };
}

/** The same for every run on one server, since its roles are shared by runs at the same time. */
function passwordsOf(adminUrl: string): Record<Login, string> {
  const derive = (role: string) => createHmac('sha256', adminUrl).update(role).digest('hex');
  return Object.fromEntries(LOGINS.map((login) => [login, derive(login)])) as Record<Login, string>;
}
