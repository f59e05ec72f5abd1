import type { Client } from 'pg';
import type { Check, Finding } from './check.ts';
import { inTransaction, names, type TenantTable, tenantTables } from './database.ts';
import { definers } from './definers.ts';
import { keyFaults } from './keys.ts';
import { policyFaults } from './policies.ts';
import { rightFaults } from './rights.ts';

/** Who may set the scope: the one that asks first, and the one for definer functions, which have asked. */
const ENTER = 'enter_project(uuid,uuid,text,boolean,boolean)';
const SETS_SCOPE = [ENTER, 'scope_to(uuid)'];

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

/** What the connection's role can do, and what it could be: a role it is a member of is open to it, inherited or set. */
const powerless = async (client: Client): Promise<Finding> => {
  const faults = await names(
    client,
    `select r.rolname || ' ' || fault as name
     from pg_roles me join pg_roles r on r.oid = me.oid or (pg_has_role(me.oid, r.oid, 'member') and not me.rolsuper)
     cross join lateral (values
       (r.rolsuper, 'is a superuser'), (r.rolbypassrls, 'can bypass row-level security'),
       (r.rolreplication, 'can replicate the whole database'),
       (exists (select from pg_class c where c.relowner = r.oid and c.relnamespace = 'jeex'::regnamespace), 'owns tables'),
       (exists (select from pg_proc p where p.proowner = r.oid and p.prosecdef and p.pronamespace = 'jeex'::regnamespace),
        'owns definer functions'),
       (r.oid <> me.oid and r.rolname <> 'jeex_app', 'is a role it is a member of')
     ) as faults (present, fault)
     where me.rolname = current_user and present order by r.oid <> me.oid, 1`,
  );
  const { rows } = await client.query<{ name: string }>('select current_user as name');
  return { seen: `the role is ${rows[0]?.name}`, faults };
};

const scopeSetters = async (client: Client): Promise<Finding> => {
  const { rows } = await client.query<{ name: string; mine: boolean }>(`
    select p.oid::regprocedure::text as name, has_function_privilege(p.oid, 'execute') as mine
    from pg_proc p join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'jeex'::regnamespace and p.prokind <> 'a' and l.lanname <> 'c'
      and pg_get_functiondef(p.oid) ~* 'set_config|set\\s+(local\\s+|session\\s+)?jeex\\.' order by 1`);
  const faults = rows.flatMap(({ name, mine }) => [
    ...(SETS_SCOPE.includes(name) ? [] : [`${name} sets a setting, which may be the scope`]),
    ...(mine && name !== ENTER ? [`${name} sets the scope without asking, and this role may call it`] : []),
  ]);
  return { seen: rows.map(({ name }) => name).join(', '), faults };
};

type Look = (tables: readonly TenantTable[]) => Promise<Finding>;

/** A check on the tenant tables, by which nothing is changed. */
const checkOf = (client: Client, name: string, look: Look): Check => ({
  group: 'catalog',
  name,
  run: () => inTransaction(client, async () => look(await tenantTables(client))),
});

/** What the catalog says of the definitions that the walls are made of: no migration makes them otherwise. */
export const definitionChecks = (client: Client): readonly Check[] => {
  const check = (name: string, look: Look) => checkOf(client, name, look);
  return [
    check('the policies are the expected ones, the scope a bare comparison', async (tables) => ({
      seen: `${tables.length} tables`,
      faults: await policyFaults(client, tables),
    })),
    check('every key of a tenant table holds the project', async (tables) => ({
      seen: 'primary and foreign keys, unique indexes',
      faults: await keyFaults(client, tables),
    })),
    check('what crosses projects is known, owned by jeex_system, with a fixed search_path', () => definers(client)),
    check('nothing but enter_project sets the scope for the service', () => scopeSetters(client)),
    check('nothing else shows the rows', async (tables) => ({
      seen: 'every right to a table, view or column, grants on what is the system, rights to create',
      faults: await rightFaults(client, tables),
    })),
  ];
};

/** What the database's catalog says of the walls: seen by the service's own role, which may read all of it. */
export const catalogChecks = (client: Client): readonly Check[] => [
  checkOf(client, 'row-level security is on and forced on every tenant table', (tables) => secured(client, tables)),
  checkOf(client, "the service's role cannot bypass it, nor become a role that can", () => powerless(client)),
  ...definitionChecks(client),
];
