import type { Client } from 'pg';
import type { Check, Finding } from './check.ts';
import { type TenantTable, tenantTables } from './database.ts';
import { policyFaults } from './policies.ts';

/** The definer functions that the service's role may call: what crosses projects, and nothing else does. */
const CALLED_BY_APP = new Set([
  'find_reply',
  'keep_reply',
  'shares_project',
  'get_user',
  'user_by_email',
  'users_by_id',
  'list_users',
  'lock_live_user',
  'create_user',
  'update_user',
  'record_login',
  'delete_user',
  'create_project',
  'purge_project',
  'list_projects',
  'claim_execution',
  'sweep',
  'purge_due',
  'forget_replies',
  'claim_export',
  'index_heads',
]);
const FIXED_PATH = 'search_path=jeex, pg_temp';
/** Who may set the scope: the one that asks first, and the one for definer functions, which have asked. */
const SETS_SCOPE = ['enter_project', 'scope_to'];

const names = async (client: Client, text: string, values: readonly unknown[] = []): Promise<string[]> =>
  (await client.query<{ name: string }>(text, [...values])).rows.map(({ name }) => name);

const secured = async (client: Client, tables: readonly TenantTable[]): Promise<Finding> => {
  const faults = await names(
    client,
    `select c.relname || ': row-level security is ' || case when c.relrowsecurity then 'not forced' else 'off' end as name
     from pg_class c where c.relnamespace = 'jeex'::regnamespace and c.relname = any ($1)
       and not (c.relrowsecurity and c.relforcerowsecurity) order by 1`,
    [tables.map(({ name }) => name)],
  );
  return { seen: `${tables.length} tables`, faults };
};

/** What the connection's role is, and every role it is a member of, can do. */
const powerless = async (client: Client): Promise<Finding> => {
  const faults = await names(
    client,
    `select r.rolname || ' ' || fault as name
     from pg_roles r cross join lateral (values
       (r.rolsuper, 'is a superuser'), (r.rolbypassrls, 'can bypass row-level security'),
       (r.rolreplication, 'can replicate the whole database'),
       (exists (select from pg_class c where c.relowner = r.oid and c.relnamespace = 'jeex'::regnamespace), 'owns tables'),
       (exists (select from pg_proc p where p.proowner = r.oid and p.prosecdef and p.pronamespace = 'jeex'::regnamespace),
        'owns definer functions'),
       (r.rolname in ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files',
                      'pg_execute_server_program'), 'is one of the roles that reach everything')
     ) as faults (present, fault)
     where pg_has_role(r.oid, 'member') and present order by r.rolname <> current_user, 1`,
  );
  const { rows } = await client.query<{ name: string }>('select current_user as name');
  return { seen: `the role is ${rows[0]?.name}`, faults };
};

const keyed = async (client: Client, tables: readonly TenantTable[]): Promise<Finding> => {
  const faults: string[] = [];
  for (const { name, key } of tables) {
    faults.push(
      ...(await names(
        client,
        `select $1 || ': its primary key does not begin with ' || $2 as name
         where not exists (
           select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
           where i.indrelid = ('jeex.' || quote_ident($1))::regclass and i.indisprimary and a.attname = $2)
         union all
         select $1 || ': ' || f.conname || ' can point into another project'
         from pg_constraint f
         where f.contype = 'f' and f.conrelid = ('jeex.' || quote_ident($1))::regclass
           and f.confrelid = any (select ('jeex.' || quote_ident(t))::regclass from unnest($3::text[]) as t)
           and not exists (
             select from unnest(f.conkey, f.confkey) as pair (own, other)
             join pg_attribute a on a.attrelid = f.conrelid and a.attnum = pair.own
             join pg_attribute b on b.attrelid = f.confrelid and b.attnum = pair.other
             where a.attname = $2 and b.attname = case f.confrelid when 'jeex.projects'::regclass then 'id' else 'project_id' end)`,
        [name, key, tables.map((table) => table.name)],
      )),
    );
  }
  return { seen: 'primary and foreign keys', faults };
};

interface Definer {
  readonly name: string;
  readonly owner: string;
  readonly settings: readonly string[];
  readonly mine: boolean;
  readonly everybodys: boolean;
}

const definers = async (client: Client): Promise<Finding> => {
  const { rows } = await client.query<Definer>(`
    select p.proname as name, r.rolname as owner, coalesce(p.proconfig, '{}') as settings,
      has_function_privilege(p.oid, 'execute') as mine,
      exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0) as everybodys
    from pg_proc p join pg_roles r on r.oid = p.proowner
    where p.pronamespace = 'jeex'::regnamespace and p.prosecdef order by 1`);
  const faults = rows.flatMap(({ name, owner, settings, mine, everybodys }) => [
    ...(owner === 'jeex_system' ? [] : [`${name} runs as ${owner}`]),
    ...(settings.includes(FIXED_PATH) ? [] : [`${name} has no fixed search_path`]),
    ...(everybodys ? [`${name} can be called by everybody`] : []),
    ...(mine && !CALLED_BY_APP.has(name) ? [`${name} is not for this role to call`] : []),
  ]);
  return { seen: `${rows.length} functions, ${rows.filter(({ mine }) => mine).length} of them for this role`, faults };
};

const scopeSetters = async (client: Client): Promise<Finding> => {
  const { rows } = await client.query<{ name: string; mine: boolean }>(`
    select p.proname as name, has_function_privilege(p.oid, 'execute') as mine
    from pg_proc p join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'jeex'::regnamespace and p.prokind <> 'a' and l.lanname <> 'c'
      and pg_get_functiondef(p.oid) ~* 'set_config|set\\s+(local\\s+|session\\s+)?jeex\\.' order by 1`);
  const faults = rows.flatMap(({ name, mine }) => [
    ...(SETS_SCOPE.includes(name) ? [] : [`${name} sets a setting, which may be the scope`]),
    ...(mine && name !== 'enter_project' ? [`${name} sets the scope without asking, and this role may call it`] : []),
  ]);
  return { seen: rows.map(({ name }) => name).join(', '), faults };
};

const nothingElse = async (client: Client): Promise<Finding> => {
  const faults = await names(
    client,
    `select c.relname || ' is a view' as name from pg_class c
     where c.relnamespace = 'jeex'::regnamespace and c.relkind in ('v', 'm')
     union all
     select format('%I.%I can be touched by this role', n.nspname, c.relname)
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname not in ('jeex', 'pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
       and c.relkind in ('r', 'p', 'v', 'm', 'f') and has_schema_privilege(n.oid, 'usage')
       and has_table_privilege(c.oid, 'select, insert, update, delete')
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     union all
     select format('this role may create things in the schema %I', n.nspname) from pg_namespace n
     where n.nspname !~ '^pg_' and has_schema_privilege(n.oid, 'create')`,
  );
  return { seen: 'views, other schemas, rights to create', faults };
};

/** What the database's catalog says of the walls: seen by the service's own role, which may read all of it. */
export const catalogChecks = (client: Client): readonly Check[] => {
  const check = (name: string, run: (tables: readonly TenantTable[]) => Promise<Finding>): Check => ({
    group: 'catalog',
    name,
    run: async () => run(await tenantTables(client)),
  });
  return [
    check('row-level security is on and forced on every tenant table', (tables) => secured(client, tables)),
    check('the policies are the expected ones, the scope a bare comparison', async (tables) => ({
      seen: `${tables.length} tables`,
      faults: await policyFaults(client, tables),
    })),
    check("the service's role cannot bypass it, nor become a role that can", () => powerless(client)),
    check('every key of a tenant table holds the project', (tables) => keyed(client, tables)),
    check('what crosses projects is known, owned by jeex_system, with a fixed search_path', () => definers(client)),
    check('nothing but enter_project sets the scope for the service', () => scopeSetters(client)),
    check('nothing else shows the rows', () => nothingElse(client)),
  ];
};
