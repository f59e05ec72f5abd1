import { z } from 'zod';
import type { PoolerSettings } from './pgbouncer.ts';
import { type Database, first } from './pool.ts';
import type { PoolerLimits, ServerLimits } from './pool-plan.ts';
import { sql, statement } from './statement.ts';

const limits = statement({
  name: 'pool_limits.read',
  params: {},
  row: z.object({ maxConnections: z.int(), superuserReserved: z.int(), reserved: z.int() }),
  sql: () => sql.fragment`
select current_setting('max_connections')::integer as "maxConnections",
  current_setting('superuser_reserved_connections')::integer as "superuserReserved",
  current_setting('reserved_connections')::integer as reserved`,
});

/** What PostgreSQL lets in. @throws Refusal when it does not answer */
export const readLimits = async (db: Database): Promise<ServerLimits> => {
  const row = first(await db.run(limits, {}));
  if (row === undefined) throw new Error('the database gave no row');
  return row;
};

/** What a pool asks a PgBouncer for, by the names that PgBouncer knows. */
export interface Reached {
  readonly database: string;
  readonly role: string;
}

export const reachedBy = (databaseUrl: string): Reached => {
  const { pathname, username } = new URL(databaseUrl);
  return { database: decodeURIComponent(pathname.slice(1)), role: decodeURIComponent(username) };
};

/** What a PgBouncer opens for a role, by the role's own line, the database's, or the defaults. */
export const limitsOf = ({ config, databases, users }: PoolerSettings, { database, role }: Reached): PoolerLimits => {
  const numberOf = (name: string): number => Number(config.get(name) ?? 0);
  const line = databases.find(({ name }) => name === database);
  const poolOf = (user: string) => {
    const own = users.find(({ name }) => name === user);
    const pool = own?.pool_size ?? line?.pool_size ?? numberOf('default_pool_size');
    const reserve = own?.reserve_pool_size ?? line?.reserve_pool_size ?? numberOf('reserve_pool_size');
    return { pool, reserve };
  };
  const asker = config.get('auth_user') ?? '';
  const auth = asker === '' ? { pool: 0, reserve: 0 } : poolOf(asker);
  return {
    ...poolOf(role),
    auth: auth.pool + auth.reserve,
    clients: numberOf('max_client_conn'),
    database: line?.max_connections ?? numberOf('max_db_connections'),
  };
};

/** The releases before have flaws that let a client log in as any role, superusers too (CVE-2026-107350). */
const LEAST_VERSION = [1, 26, 1] as const;

/** Whether a PgBouncer is too old to stand before a database; also when it does not say. */
export const isOutdated = (version: string): boolean => {
  const [, ...found] = /^(\d+)\.(\d+)\.(\d+)/.exec(version) ?? [];
  if (found.length === 0) return true;
  const differs = LEAST_VERSION.findIndex((least, index) => Number(found[index]) !== least);
  return differs >= 0 && Number(found[differs]) < (LEAST_VERSION[differs] ?? 0);
};

export const OUTDATED =
  `it is older than ${LEAST_VERSION.join('.')}, and lets a client log in as any role, superusers too ` +
  '(CVE-2026-107350)';
