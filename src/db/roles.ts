import { type Client, escapeIdentifier, escapeLiteral } from 'pg';
import { waitForLock } from './advisory.ts';
import { openClient } from './connection.ts';
import { LOGINS, type Passwords, QUIET_LOG, ROLES, type Role } from './role-table.ts';
import { scramVerifier } from './scram.ts';

export interface BootstrapOptions {
  readonly database: string;
  readonly passwords: Passwords;
  /** The server is this service's alone: its other databases are closed to everyone but superusers. */
  readonly ownServer?: boolean;
  readonly log?: { info(message: string): void };
}

export interface Bootstrapped {
  readonly ownerUrl: string;
  readonly appUrl: string;
  /** What could not be done with the administrator's rights, and who can do it. */
  readonly notes: readonly string[];
}

/**
 * Makes what migrations need and cannot make themselves: the roles with their limits, the database, its schemas and
 * extensions. Doing it again brings roles of an earlier release up to date, takes the passwords given now, and takes the
 * login from roles without one; several at once wait for each other.
 * @param adminUrl a role that may create roles and databases; what takes a superuser besides is told in `notes`
 * @returns the same server's URLs for the owner (migrations) and the app (the service)
 * @throws Error when another bootstrap holds its lock for a minute, or the server refuses a statement
 */
export async function bootstrap(adminUrl: string, options: BootstrapOptions): Promise<Bootstrapped> {
  const { database, passwords, ownServer = false, log } = options;
  const notes: string[] = [];
  await connected(adminUrl, async (client) => {
    await waitForLock(client, 'bootstrap', { log });
    const superuser = await isSuperuser(client);
    await makeRoles(client, passwords, superuser);
    await makeDatabase(client, database);
    if (ownServer) await client.query('revoke all on database postgres, template1 from public');
    await connected(withDatabase(adminUrl, database), async (inside) => {
      await inside.query(PREPARE_DATABASE + accessStatements(database));
      if (superuser) await inside.query(SUPERUSER_OBJECTS);
      else notes.push(...leftToDo(database));
      if (superuser && !(await addStatistics(inside))) notes.push(NO_STATISTICS);
    });
  });
  return {
    ownerUrl: withLogin(adminUrl, database, 'jeex_owner', passwords.owner),
    appUrl: withLogin(adminUrl, database, 'jeex_app', passwords.app),
    notes,
  };
}

/** Who may connect to a database. Apart from `bootstrap` because a clone of a template starts without it. */
export const accessStatements = (database: string): string => `
  revoke all on database ${escapeIdentifier(database)} from public;
  grant connect on database ${escapeIdentifier(database)} to ${LOGINS.map((login) => `jeex_${login}`).join(', ')};`;

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

async function connected(url: string, work: (client: Client) => Promise<void>): Promise<void> {
  const client = await openClient(url, 'jeex-persistence bootstrap');
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

async function isSuperuser(client: Client): Promise<boolean> {
  const result = await client.query<{ rolsuper: boolean }>(
    'select rolsuper from pg_roles where rolname = current_user',
  );
  return result.rows[0]?.rolsuper === true;
}

async function makeRoles(client: Client, passwords: Passwords, superuser: boolean): Promise<void> {
  const existing = await client.query<{ rolname: string }>('select rolname from pg_roles');
  const names = new Set(existing.rows.map((row) => row.rolname));
  const verifiers = superuser ? await storedVerifiers(client) : new Map<string, string>();
  const statements = ROLES.flatMap((role) => [
    ...(names.has(role.name) ? [] : [`create role ${role.name}`]),
    ...roleStatements(role, verifierOf(role, passwords, verifiers), superuser),
  ]);
  statements.push('grant jeex_system to jeex_owner with inherit false, set true');
  // Only a member of the owner may give it a database; a superuser is everyone's member.
  if (!superuser) statements.push('grant jeex_owner to current_user with inherit true, set true');
  await client.query(statements.join(';\n'));
}

/**
 * By role. A pooler that passes logins through remembers what they were proven with: a verifier that changes under the same
 * password would shut out its clients of before.
 */
async function storedVerifiers(client: Client): Promise<ReadonlyMap<string, string>> {
  const { rows } = await client.query<{ name: string; verifier: string }>(
    'select rolname as name, rolpassword as verifier from pg_authid where rolpassword is not null',
  );
  return new Map(rows.map(({ name, verifier }) => [name, verifier]));
}

function verifierOf(role: Role, passwords: Passwords, stored: ReadonlyMap<string, string>): string | null {
  const password = role.login === null ? undefined : passwords[role.login];
  return password === undefined ? null : scramVerifier(password, stored.get(role.name));
}

/**
 * What keeps auto_explain from printing a role's plans, whatever its configuration: a plan that was made for given values shows
 * them. Only a superuser may set these on a role, also where the library is not loaded.
 */
const QUIET_PLANS = { 'auto_explain.log_min_duration': '-1', 'auto_explain.log_parameter_max_length': '0' };

/** What makes a role what the table says, whatever it was before. */
function roleStatements(role: Role, verifier: string | null, superuser: boolean): string[] {
  const { name, settings, connections = -1, memberOf = [] } = role;
  const login = verifier === null ? 'nologin password null' : `login password ${escapeLiteral(verifier)}`;
  const own = { ...settings, ...(superuser ? { ...QUIET_LOG, ...QUIET_PLANS } : {}) };
  return [
    `alter role ${name} connection limit ${connections} ${login}`,
    ...(superuser ? [`alter role ${name} nosuperuser nobypassrls nocreaterole nocreatedb noreplication`] : []),
    ...(superuser ? memberOf.map((group) => `grant ${group} to ${name}`) : []),
    ...Object.entries(own).map(([setting, value]) => `alter role ${name} set ${setting} = ${escapeLiteral(value)}`),
  ];
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

const PREPARE_DATABASE = `
  revoke all on schema public from public;
  create schema if not exists jeex authorization jeex_owner;
  grant usage on schema jeex to jeex_app, jeex_system;
  create schema if not exists crypto;
  grant usage on schema crypto to jeex_system;
  create extension if not exists pgcrypto schema crypto;`;

/**
 * The pooler's question, a physical backup's functions, and for the migrator the sight of when one ended. The answer to the
 * question is the stored verifier of the one role that comes through the pooler, never another's.
 */
const SUPERUSER_OBJECTS = `
  create schema if not exists pooler;
  revoke all on schema pooler from public;
  grant usage on schema pooler to jeex_pooler;
  create or replace function pooler.get_auth(login text, out rolname text, out rolpassword text) returns setof record
    language sql stable security definer set search_path = pg_catalog, pg_temp
    begin atomic
      select a.rolname::text, a.rolpassword from pg_authid a
      where a.rolname = login and a.rolname = 'jeex_app' and a.rolcanlogin
        and (a.rolvaliduntil is null or a.rolvaliduntil > now());
    end;
  revoke all on function pooler.get_auth from public;
  grant execute on function pooler.get_auth to jeex_pooler;
  grant execute on function pg_backup_start, pg_backup_stop, pg_switch_wal, pg_create_restore_point to jeex_backup;
  grant execute on function pg_ls_waldir to jeex_owner;`;

/** Statistics of statements, in a schema that the monitor alone may use; false where the server has not loaded them. */
async function addStatistics(client: Client): Promise<boolean> {
  const loaded =
    await client.query(`select from regexp_split_to_table(current_setting('shared_preload_libraries'), '[, ]+') l
    where l = 'pg_stat_statements'`);
  if (loaded.rowCount === 0) return false;
  await client.query(`
    create schema if not exists stats;
    create extension if not exists pg_stat_statements schema stats;
    -- Whoever made it first, such as an operator of clusters, may have put it elsewhere.
    alter extension pg_stat_statements set schema stats;
    grant usage on schema stats to jeex_monitor;`);
  return true;
}

const NO_STATISTICS =
  'pg_stat_statements is not loaded: put it into shared_preload_libraries, with pg_stat_statements.track_utility = off, ' +
  'and run bootstrap again';

/** What a superuser has to do where the administrator is none. */
const leftToDo = (database: string): string[] => [
  `put into postgresql.conf, so that no content reaches the server's log: ${Object.entries(QUIET_LOG)
    .map(([name, value]) => `${name} = ${value}`)
    .join(', ')}, and keep auto_explain off`,
  ...ROLES.flatMap(({ name, memberOf = [] }) =>
    memberOf.length > 0 ? [`grant ${memberOf.join(', ')} to ${name}`] : [],
  ),
  'run bootstrap once as a superuser for a PgBouncer that asks with auth_query (jeex_pooler), for physical backups of ' +
    `${database} (jeex_backup), for a migrator that sees when one ended (jeex_owner), and for pg_stat_statements`,
];
