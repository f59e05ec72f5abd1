import { randomBytes } from 'node:crypto';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, DatabaseError } from 'pg';
import type { Login } from '../../src/db/role-table.ts';
import { accessStatements, withDatabase, withLogin } from '../../src/db/roles.ts';
import type { Issued } from './certificates.ts';

/** A PostgreSQL to test with. */
export interface TestServer {
  /** As a superuser (or whoever TEST_DATABASE_URL names), direct. */
  readonly adminUrl: string;
  readonly passwords: Readonly<Record<Login, string>>;
  /** PgBouncer before it; null in a run without. */
  readonly pooler: TestPooler | null;
}

/** What the run's setup hands to each test file's process. */
export interface TestCluster extends TestServer {
  /** Migrated. */
  readonly template: string;
  /** As `bootstrap` leaves it: what a migrator finds. */
  readonly emptyTemplate: string;
}

export interface TestPooler {
  /** Its address and how to verify it; database and role are the caller's. */
  readonly url: string;
  /** What a proxy before it shows instead, in PEM. */
  readonly certificate: Issued;
}

export interface TestDatabase {
  /** As a superuser (or whoever TEST_DATABASE_URL names), to this database, direct. */
  readonly adminUrl: string;
  /** Direct. */
  readonly ownerUrl: string;
  /** As the service reaches it: through PgBouncer, where the run has one. */
  readonly appUrl: string;
  /** As any of the roles, to this database, direct: for tests that need a session of their own, or look at it. */
  urlAs(login: Login): string;
  readonly name: string;
  /** Ends its sessions and removes it; again: nothing. */
  drop(): Promise<void>;
}

export const CLUSTER_VARIABLE = 'JEEX_TEST_CLUSTER';
const MAX_ATTEMPTS = 50;

/** The run's PostgreSQL. @throws Error when the setup did not run */
export function testCluster(): TestCluster {
  const text = process.env[CLUSTER_VARIABLE];
  if (!text) throw new Error('run tests with: node --test --test-global-setup=test/support/setup.ts <files>');
  return JSON.parse(text) as TestCluster;
}

/** A migrated database of one's own, cloned from the template; with `empty` one that no migration has run on. */
export async function createTestDatabase(options: { empty?: boolean } = {}): Promise<TestDatabase> {
  const cluster = testCluster();
  const name = `jeex_test_${randomBytes(6).toString('hex')}`;
  await asAdmin(cluster.adminUrl, async (client) => {
    await clone(client, name, options.empty ? cluster.emptyTemplate : cluster.template);
    await client.query(accessStatements(name));
  });
  return databaseOn(cluster, name);
}

/** A database that is there. */
export function databaseOn({ adminUrl, passwords, pooler }: TestServer, name: string): TestDatabase {
  const urlAs = (login: Login) => withLogin(adminUrl, name, `jeex_${login}`, passwords[login]);
  return {
    adminUrl: withDatabase(adminUrl, name),
    ownerUrl: urlAs('owner'),
    appUrl: withLogin(pooler?.url ?? adminUrl, name, 'jeex_app', passwords.app),
    urlAs,
    name,
    drop: () =>
      asAdmin(adminUrl, async (client) => void (await client.query(`drop database if exists ${name} with (force)`))),
  };
}

/** A database for the tests of the enclosing file or suite, dropped after them. */
export async function useTestDatabase(options: { empty?: boolean } = {}): Promise<TestDatabase> {
  const database = await createTestDatabase(options);
  after(() => database.drop());
  return database;
}

/** A connection, closed after the file's tests. */
export const connectAs = async (url: string): Promise<Client> => {
  const client = new Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  await client.query('set search_path = jeex');
  after(() => client.end());
  return client;
};

/** A connection as the schema's owner, who may look at and alter what no call can. */
export const useOwner = (db: TestDatabase): Promise<Client> => connectAs(db.ownerUrl);

/** Another clone's work on the template can stand in the way for a moment (object_in_use). */
async function clone(client: Client, name: string, template: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await client.query(`create database ${name} owner jeex_owner template ${template}`);
      return;
    } catch (error) {
      if (!(error instanceof DatabaseError) || error.code !== '55006' || attempt === MAX_ATTEMPTS) throw error;
      await sleep(100);
    }
  }
}

/** Runs the work on a connection of its own and closes it. */
async function asAdmin(adminUrl: string, work: (client: Client) => Promise<void>): Promise<void> {
  const client = new Client({ connectionString: adminUrl });
  client.on('error', () => {});
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
