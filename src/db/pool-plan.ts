import { ROLES } from './role-table.ts';

/** What PostgreSQL lets in. */
export interface ServerLimits {
  readonly maxConnections: number;
  /** Kept for superusers (`superuser_reserved_connections`). */
  readonly superuserReserved: number;
  /** Kept for members of `pg_use_reserved_connections` (`reserved_connections`). */
  readonly reserved: number;
}

/** What one replica's PgBouncer opens and lets in. */
export interface PoolerLimits {
  /** Connections to PostgreSQL for the service's role: `default_pool_size`, or the user's or the database's own. */
  readonly pool: number;
  /** More of them, while a client waits for long (`reserve_pool_size`). */
  readonly reserve: number;
  /** Connections of the role that asks for verifiers (`auth_user`), its reserve among them; 0: none asks. */
  readonly auth: number;
  /** Connections to PgBouncer itself, its console among them (`max_client_conn`). */
  readonly clients: number;
  /** Connections to the database, whoever's (`max_db_connections`); 0: as many as the pools need. */
  readonly database: number;
}

/** A deployment: how many replicas, and what stands between each and PostgreSQL. */
export interface Plan {
  /** Connections of one replica's service, all of them (POOL_SIZE). */
  readonly poolSize: number;
  /** Processes of the service at once, at most (MAX_REPLICAS). */
  readonly maxReplicas: number;
  readonly server: ServerLimits;
  /** Null: the service's pool reaches PostgreSQL itself. */
  readonly pooler: PoolerLimits | null;
}

/** A rule that does not hold, with its figures, and what would make it hold. */
export interface Broken {
  readonly says: string;
  readonly mend: string;
}

interface Direct {
  readonly who: string;
  readonly connections: number;
  readonly per: 'replica' | 'database';
  readonly reason: string;
}

const limitOf = (name: string): number => ROLES.find((role) => role.name === name)?.connections ?? 0;

/** What reaches PostgreSQL around the pools. A role's own limit counts in full: nothing keeps it from being used. */
export const DIRECT: readonly Direct[] = [
  { who: 'listener', connections: 1, per: 'replica', reason: 'waits for notifications, which no pooler passes on' },
  { who: 'monitor', connections: 1, per: 'replica', reason: 'looks when the pool is full, or its pooler is down' },
  { who: 'jeex_owner', connections: 2, per: 'database', reason: 'migrations one at a time; a rotation takes two' },
  {
    who: 'jeex_backup',
    connections: limitOf('jeex_backup'),
    per: 'database',
    reason: "the role's limit: a dump's jobs",
  },
  { who: 'jeex_readonly', connections: limitOf('jeex_readonly'), per: 'database', reason: "the role's limit: people" },
];

/**
 * Connections to PgBouncer besides the service's pool: the service at its console, for plans, and for the monitor that has no
 * way of its own; and `doctor` at the console and beside the pool.
 */
const OTHER_CLIENTS = 6;

const directly = (per: Direct['per']): number =>
  DIRECT.reduce((sum, direct) => sum + (direct.per === per ? direct.connections : 0), 0);

interface Need {
  /** What one replica may open to PostgreSQL. */
  readonly perReplica: number;
  readonly once: number;
  /** Of all replicas, and what connects once. */
  readonly total: number;
  /** What PostgreSQL has for roles without a privilege. */
  readonly available: number;
}

const needOf = ({ poolSize, maxReplicas, server, pooler }: Plan): Need => {
  const pooled = pooler === null ? poolSize : pooler.pool + pooler.reserve + pooler.auth;
  const perReplica = pooled + directly('replica');
  const once = directly('database');
  const available = server.maxConnections - server.superuserReserved - server.reserved;
  return { perReplica, once, total: maxReplicas * perReplica + once, available };
};

/** The sum for people, such as `2 × (20 + 5 + 1 + 2) + 22 = 78 of 97 connections`. */
export const describePlan = (plan: Plan): string => {
  const { pooler, poolSize, maxReplicas } = plan;
  const { once, total, available } = needOf(plan);
  const parts = pooler === null ? [poolSize] : [pooler.pool, pooler.reserve, pooler.auth];
  const replica = [...parts, directly('replica')].join(' + ');
  return `${maxReplicas} × (${replica}) + ${once} = ${total} of ${available} connections`;
};

/** Every rule of the plan that does not hold; none: it fits. */
export const brokenRules = (plan: Plan): readonly Broken[] => [
  ...serverRule(plan),
  ...(plan.pooler === null ? [] : poolerRules(plan.poolSize, plan.pooler)),
];

const serverRule = (plan: Plan): readonly Broken[] => {
  const { maxReplicas, poolSize, server, pooler } = plan;
  const { perReplica, once, total, available } = needOf(plan);
  if (total <= available) return [];
  const pool = pooler?.pool ?? poolSize;
  const mostReplicas = Math.floor((available - once) / perReplica);
  const mostPool = Math.floor((available - once) / maxReplicas) - (perReplica - pool);
  const setting = pooler === null ? 'POOL_SIZE' : 'default_pool_size (and POOL_SIZE with it)';
  const mends = [
    ...(mostReplicas >= 1 ? [`lower MAX_REPLICAS to ${mostReplicas}`] : []),
    ...(mostPool >= 2 ? [`lower ${setting} to ${mostPool}`] : []),
    `raise max_connections to ${server.maxConnections + total - available}`,
  ];
  return [
    {
      says:
        `the replicas and what connects directly may open ${describePlan(plan)}: PostgreSQL has ${server.maxConnections}, ` +
        `and keeps ${server.superuserReserved + server.reserved} of them back`,
      mend: mends.join(', or '),
    },
  ];
};

const poolerRules = (poolSize: number, { pool, reserve, auth, clients, database }: PoolerLimits): readonly Broken[] => {
  const servers = pool + reserve + auth;
  const broken: (Broken | false)[] = [
    poolSize > pool && {
      says: `POOL_SIZE is ${poolSize} and PgBouncer's pool ${pool}: what is over it waits where nobody counts it`,
      mend: `lower POOL_SIZE to ${pool}, or raise default_pool_size to ${poolSize}`,
    },
    poolSize + OTHER_CLIENTS > clients && {
      says: `PgBouncer lets ${clients} clients in, and POOL_SIZE (${poolSize}) with what is beside it takes ${poolSize + OTHER_CLIENTS}`,
      mend: `raise max_client_conn to ${poolSize + OTHER_CLIENTS}`,
    },
    database > 0 &&
      servers > database && {
        says: `PgBouncer opens ${database} connections to the database at most, and its pools may need ${pool} + ${reserve} + ${auth}`,
        mend: `raise max_db_connections to ${servers}, or set it to 0`,
      },
  ];
  return broken.filter((rule) => rule !== false);
};
