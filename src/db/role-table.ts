/** The roles with a password, by what the rest of their name is after `jeex_`. */
export const LOGINS = ['owner', 'app', 'readonly', 'monitor', 'backup', 'pooler'] as const;
export type Login = (typeof LOGINS)[number];

/** Passwords by login. One without a password cannot log in. */
export type Passwords = { readonly owner: string; readonly app: string } & { readonly [L in Login]?: string };

export interface Role {
  readonly name: `jeex_${Login | 'system'}`;
  /** Null: a role that nobody logs in as. */
  readonly login: Login | null;
  /** Limits stand on the role, where a transaction pooler cannot lose them. */
  readonly settings: Readonly<Record<string, string>>;
  /** Sessions at the same time; absent: as many as the server has. */
  readonly connections?: number;
  /** Predefined roles it belongs to, which only a superuser may grant. */
  readonly memberOf?: readonly string[];
}

const COMMON = { search_path: 'jeex', timezone: 'UTC' };
/** A session that a person left open ends by itself; a pooler's never does, for it stands ready. */
const HUMAN = { idle_session_timeout: '15min' };
const POOLED = { idle_session_timeout: '0' };

/** Every role, each with only what it needs; what it may touch, migrations grant. */
export const ROLES: readonly Role[] = [
  {
    name: 'jeex_owner',
    login: 'owner',
    settings: { ...COMMON, ...HUMAN, lock_timeout: '5s', idle_in_transaction_session_timeout: '5min' },
  },
  {
    name: 'jeex_app',
    login: 'app',
    settings: {
      ...COMMON,
      ...POOLED,
      statement_timeout: '15s',
      lock_timeout: '5s',
      idle_in_transaction_session_timeout: '30s',
      transaction_timeout: '30s',
      jit: 'off',
      enable_memoize: 'off',
    },
  },
  { name: 'jeex_system', login: null, settings: COMMON },
  {
    name: 'jeex_readonly',
    login: 'readonly',
    settings: {
      ...COMMON,
      ...HUMAN,
      default_transaction_read_only: 'on',
      statement_timeout: '1min',
      lock_timeout: '5s',
      idle_in_transaction_session_timeout: '1min',
      transaction_timeout: '5min',
    },
    connections: 10,
  },
  {
    name: 'jeex_monitor',
    login: 'monitor',
    settings: {
      ...COMMON,
      default_transaction_read_only: 'on',
      statement_timeout: '10s',
      lock_timeout: '1s',
      idle_in_transaction_session_timeout: '10s',
      transaction_timeout: '10s',
    },
    connections: 20,
    memberOf: ['pg_monitor'],
  },
  {
    name: 'jeex_backup',
    login: 'backup',
    settings: { ...COMMON, lock_timeout: '5min', idle_in_transaction_session_timeout: '1h' },
    connections: 10,
    memberOf: ['pg_read_all_settings', 'pg_checkpoint'],
  },
  {
    name: 'jeex_pooler',
    login: 'pooler',
    settings: {
      ...POOLED,
      search_path: 'pg_catalog',
      default_transaction_read_only: 'on',
      statement_timeout: '5s',
      lock_timeout: '1s',
      idle_in_transaction_session_timeout: '5s',
      transaction_timeout: '5s',
    },
  },
];

/**
 * What keeps the content of rows and parameters out of the server's log, whatever its configuration. Only a superuser may
 * set these on a role.
 */
export const QUIET_LOG = {
  log_error_verbosity: 'terse',
  log_min_error_statement: 'panic',
  log_parameter_max_length: '0',
  log_parameter_max_length_on_error: '0',
} as const;
