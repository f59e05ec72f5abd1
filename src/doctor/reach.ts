import type { Client } from 'pg';
import { isPooled } from '../db/pooled.ts';
import { type Check, failed, faultOf, Skip, warning } from './check.ts';
import { isEmbedded, withClient } from './patient.ts';

const way = (pooled: boolean): string => (pooled ? 'through a pooler' : 'directly');

const cannotBeReached = (variable: string, error: unknown) => ({
  seen: 'it cannot be reached',
  faults: [faultOf(error, `see that ${variable} is right`)],
});

const roleOf = async (client: Client): Promise<string> =>
  (await client.query<{ role: string }>('select current_user as role')).rows[0]?.role ?? '';

/** The database as the service reaches it. */
export const reach: Check = {
  group: 'database',
  name: 'connection',
  run: async (patient) => {
    const { pgbouncerAdminUrl } = patient.config;
    let client: Client;
    try {
      client = await patient.connect();
    } catch (error) {
      return cannotBeReached('DATABASE_URL', error);
    }
    const pooled = await isPooled(client);
    const past = 'PGBOUNCER_ADMIN_URL is set, and DATABASE_URL goes past it to PostgreSQL itself';
    return {
      seen: `as ${await roleOf(client)}, ${way(pooled)}`,
      faults:
        pgbouncerAdminUrl !== null && !pooled
          ? [warning(past, "name PgBouncer's host and port in DATABASE_URL, or unset PGBOUNCER_ADMIN_URL")]
          : [],
    };
  },
};

/** The owner's connection, on which migrations hold locks and settings of their session. */
export const direct: Check = {
  group: 'database',
  name: "the owner's connection",
  run: async (patient) => {
    if (patient.config.migrationDatabaseUrl === null && !isEmbedded(patient)) {
      throw new Skip('MIGRATION_DATABASE_URL is unset here');
    }
    await patient.app();
    const { migrationUrl } = await patient.database();
    try {
      return await withClient(migrationUrl, examineOwner);
    } catch (error) {
      return cannotBeReached('MIGRATION_DATABASE_URL', error);
    }
  },
};

const examineOwner = async (client: Client) => {
  const pooled = await isPooled(client);
  const role = await roleOf(client);
  const { rows } = await client.query<{ owner: string }>(
    `select nspowner::regrole::text as owner from pg_namespace where nspname = 'jeex'`,
  );
  const owner = rows[0]?.owner ?? 'jeex_owner';
  return {
    seen: `as ${role}, ${way(pooled)}`,
    faults: [
      ...(pooled
        ? [
            failed(
              'it goes through a pooler, which gives the session of a migration, with its lock, to others',
              "name PostgreSQL's own host and port in MIGRATION_DATABASE_URL",
            ),
          ]
        : []),
      ...(role === owner
        ? []
        : [failed(`the schema belongs to ${owner}`, `name the role ${owner} in MIGRATION_DATABASE_URL`)]),
    ],
  };
};

/** The listener's connection, on which other processes tell what they have changed. */
export const listener: Check = {
  group: 'database',
  name: "the listener's connection",
  run: async (patient) => {
    if (patient.config.listenDatabaseUrl === null && !isEmbedded(patient)) {
      throw new Skip('LISTEN_DATABASE_URL is unset here: what other processes change is found by polling');
    }
    const home = await homeOf(await patient.app());
    const { listenUrl } = await patient.database();
    try {
      return await withClient(listenUrl ?? '', (client) => examineListener(client, home));
    } catch (error) {
      return cannotBeReached('LISTEN_DATABASE_URL', error);
    }
  },
};

/** Where a session is, and as whom. */
interface Home {
  readonly role: string;
  readonly database: string;
  /** When its server started, which no other has done in the same microsecond. */
  readonly started: string;
}

const homeOf = async (client: Client): Promise<Home> => {
  const { rows } = await client.query<Home>(
    'select current_user as role, current_database() as database, pg_postmaster_start_time()::text as started',
  );
  return rows[0] as Home;
};

const examineListener = async (client: Client, home: Home) => {
  const pooled = await isPooled(client);
  const { role, database, started } = await homeOf(client);
  const elsewhere = database !== home.database || started !== home.started;
  return {
    seen: `as ${role}, ${way(pooled)}`,
    faults: [
      ...(pooled
        ? [
            failed(
              'it goes through a pooler, which passes no notification on',
              "name PostgreSQL's own host and port in LISTEN_DATABASE_URL",
            ),
          ]
        : []),
      ...(elsewhere
        ? [failed('it leads to another database than DATABASE_URL', 'name the same one in LISTEN_DATABASE_URL')]
        : []),
      ...(role === home.role ? [] : [failed(`it is not ${home.role}`, `name that role in LISTEN_DATABASE_URL`)]),
    ],
  };
};
