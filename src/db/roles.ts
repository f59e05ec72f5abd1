import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { Client, escapeIdentifier, escapeLiteral } from 'pg';
import { waitForLock } from './advisory.ts';

export interface BootstrapOptions {
  readonly database: string;
  readonly passwords: { readonly owner: string; readonly app: string };
  readonly log?: { info(message: string): void };
}

export interface BootstrapUrls {
  readonly ownerUrl: string;
  readonly appUrl: string;
}

const APPLICATION = 'jeex-persistence bootstrap';

/** Limits stand on the role, where a transaction pooler cannot lose them. */
const APP_SETTINGS = {
  statement_timeout: '15s',
  lock_timeout: '5s',
  idle_in_transaction_session_timeout: '30s',
  transaction_timeout: '30s',
  jit: 'off',
  enable_memoize: 'off',
};
const ROLES = [
  { name: 'jeex_owner', login: true, settings: { lock_timeout: '5s', idle_in_transaction_session_timeout: '5min' } },
  { name: 'jeex_app', login: true, settings: APP_SETTINGS },
  { name: 'jeex_system', login: false, settings: {} },
] as const;
const COMMON_SETTINGS = { search_path: 'jeex', timezone: 'UTC' };

/**
 * Makes what migrations need and cannot make themselves: the three roles with their limits, the database, its schema
 * and its extension. Doing it again changes nothing but the passwords; several at once wait for each other.
 * @param adminUrl a role that may create roles and databases; it need not be a superuser
 * @returns the same server's URLs for the owner (migrations) and the app (the service)
 * @throws Error when another bootstrap holds its lock for a minute, or the server refuses a statement
 */
export async function bootstrap(adminUrl: string, options: BootstrapOptions): Promise<BootstrapUrls> {
  const { database, passwords, log } = options;
  const client = await connect(adminUrl);
  try {
    await waitForLock(client, 'bootstrap', log);
    await makeRoles(client, passwords);
    await makeDatabase(client, database);
    await inDatabase(adminUrl, database, prepareDatabase);
  } finally {
    await client.end();
  }
  return {
    ownerUrl: withLogin(adminUrl, database, 'jeex_owner', passwords.owner),
    appUrl: withLogin(adminUrl, database, 'jeex_app', passwords.app),
  };
}

/** Who may connect to a database. Apart from `bootstrap` because a clone of a template starts without it. */
export const accessStatements = (database: string): string => `
  revoke all on database ${escapeIdentifier(database)} from public;
  grant connect on database ${escapeIdentifier(database)} to jeex_app;`;

/** The URL with another database; everything else stays. */
export function withDatabase(url: string, database: string): string {
  const changed = new URL(url);
  changed.pathname = `/${encodeURIComponent(database)}`;
  return changed.href;
}

/** The URL with another database, user and password; the server and its options stay. */
export function withLogin(url: string, database: string, user: string, password: string): string {
  const changed = new URL(withDatabase(url, database));
  changed.username = encodeURIComponent(user);
  changed.password = encodeURIComponent(password);
  return changed.href;
}

async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: APPLICATION });
  client.on('error', () => {});
  await client.connect();
  return client;
}

async function inDatabase(adminUrl: string, database: string, work: (client: Client) => Promise<void>): Promise<void> {
  const client = await connect(withDatabase(adminUrl, database));
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

async function makeRoles(client: Client, passwords: BootstrapOptions['passwords']): Promise<void> {
  const existing = await client.query<{ rolname: string }>('select rolname from pg_roles');
  const names = new Set(existing.rows.map((row) => row.rolname));
  for (const { name, login, settings } of ROLES) {
    if (!names.has(name)) await client.query(`create role ${name} ${login ? 'login' : 'nologin'}`);
    for (const [setting, value] of Object.entries({ ...COMMON_SETTINGS, ...settings })) {
      await client.query(`alter role ${name} set ${setting} = ${escapeLiteral(value)}`);
    }
  }
  await client.query(`alter role jeex_owner password ${escapeLiteral(scramVerifier(passwords.owner))}`);
  await client.query(`alter role jeex_app password ${escapeLiteral(scramVerifier(passwords.app))}`);
  await client.query('grant jeex_system to jeex_owner with inherit false, set true');
  const admin = await client.query<{ rolsuper: boolean }>('select rolsuper from pg_roles where rolname = current_user');
  // Only a member of the owner may give it a database; a superuser is everyone's member.
  if (!admin.rows[0]?.rolsuper) await client.query('grant jeex_owner to current_user with inherit true, set true');
}

/** A builtin locale sorts the same on every system, so that indexes over text survive a move. */
async function makeDatabase(client: Client, database: string): Promise<void> {
  const found = await client.query('select from pg_database where datname = $1', [database]);
  if (found.rowCount !== 0) return;
  await client.query(
    `create database ${escapeIdentifier(database)} owner jeex_owner template template0 encoding 'UTF8'
       lc_collate 'C' lc_ctype 'C' locale_provider builtin builtin_locale 'C.UTF-8'`,
  );
}

async function prepareDatabase(client: Client): Promise<void> {
  await client.query(accessStatements(client.database as string));
  await client.query(`
    revoke all on schema public from public;
    create schema if not exists jeex authorization jeex_owner;
    grant usage on schema jeex to jeex_app, jeex_system;
    create schema if not exists crypto;
    grant usage on schema crypto to jeex_system;
    create extension if not exists pgcrypto schema crypto;`);
}

/** The server stores this instead of a password, so the password itself never reaches the server's log (RFC 5803). */
function scramVerifier(password: string): string {
  const iterations = 4096;
  const salt = randomBytes(16);
  const salted = pbkdf2Sync(password, salt, iterations, 32, 'sha256');
  const clientKey = createHmac('sha256', salted).update('Client Key').digest();
  const storedKey = createHash('sha256').update(clientKey).digest('base64');
  const serverKey = createHmac('sha256', salted).update('Server Key').digest('base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}
