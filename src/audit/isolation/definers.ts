import type { Client } from 'pg';
import type { Finding } from './check.ts';

/** The definer functions that the service's role may call: what crosses projects, and nothing else does. */
const CALLED_BY_APP: ReadonlySet<string> = new Set([
  'find_reply(call)',
  'keep_reply(call,uuid,uuid,jsonb)',
  'shares_project(uuid,uuid)',
  'get_user(uuid,uuid)',
  'user_by_email(text)',
  'users_by_id(uuid[])',
  'list_users(text,uuid,integer)',
  'lock_live_user(uuid)',
  'create_user(call,uuid,text,text,bytea,bytea)',
  'update_user(call,uuid,bigint,text,text,bytea,bytea)',
  'record_login(call,uuid)',
  'delete_user(call,uuid)',
  'create_project(call,text,text,jsonb,uuid)',
  'purge_project(call,uuid)',
  'list_projects(uuid,text[],boolean,uuid,integer)',
  'claim_execution(call,text[],integer)',
  'sweep(integer)',
  'purge_due()',
  'forget_replies(integer)',
  'retain(interval,interval,interval,integer)',
  'claim_export(call,integer)',
  'index_heads(integer)',
]);
const FIXED_PATH = 'search_path=jeex, pg_temp';

interface Definer {
  /** With its parameters, since each overload is a function of its own; with its schema unless that is jeex. */
  readonly name: string;
  readonly owner: string;
  readonly settings: readonly string[];
  /** Whether it is of the schema jeex. */
  readonly ours: boolean;
  /** Whether the connection's role may call it. */
  readonly mine: boolean;
  readonly everybodys: boolean;
}

const faultsOf = ({ name, owner, settings, ours, mine, everybodys }: Definer): string[] => {
  if (!ours) return [`${name} runs as ${owner} for this role, and is none of this release`];
  return [
    ...(owner === 'jeex_system' ? [] : [`${name} runs as ${owner}`]),
    ...(settings.includes(FIXED_PATH) ? [] : [`${name} has no fixed search_path`]),
    ...(everybodys ? [`${name} can be called by everybody`] : []),
    ...(mine && !CALLED_BY_APP.has(name) ? [`${name} is not for this role to call`] : []),
  ];
};

/** Looks at every definer function of the schema jeex, and at every other one the role may call, wherever it is. */
export const definers = async (client: Client): Promise<Finding> => {
  const { rows } = await client.query<Definer>(`
    select p.oid::regprocedure::text as name, r.rolname as owner, coalesce(p.proconfig, '{}') as settings, ours, mine,
      exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0) as everybodys
    from pg_proc p join pg_roles r on r.oid = p.proowner
    cross join lateral (select p.pronamespace = 'jeex'::regnamespace as ours,
      has_schema_privilege(p.pronamespace, 'usage') and has_function_privilege(p.oid, 'execute') as mine) as judged
    where p.prosecdef and (ours or mine) order by 1`);
  const mine = rows.filter((definer) => definer.mine);
  return { seen: `${rows.length} functions, ${mine.length} of them for this role`, faults: rows.flatMap(faultsOf) };
};
