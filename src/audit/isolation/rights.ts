import type { Client } from 'pg';
import { names, type TenantTable } from './database.ts';

/** Row-level security stands before these, whole or on columns; TRUNCATE and REFERENCES go past it. */
const BY_ROW = /^(select|insert|update|delete)( |$)/;
/** The tables that hold no project's rows, and what the service's role may do with them, to the column. */
const OTHERS: Readonly<Record<string, readonly string[]>> = {
  users: ['select (id)', 'select (delete_time)'],
  sealing_keys: ['select', 'insert (key_id)', 'insert (secret)'],
  schemaversion: ['select'],
};

/** What the role may touch, and how: `select`, or `select (email)` where it is a column's alone. */
interface Reached {
  /** With its schema unless that is jeex. */
  readonly name: string;
  readonly rights: readonly string[];
}

/** Every relation the role has a right to, but for those of the system and of extensions: see `systemGrants`. */
const readReached = async (client: Client): Promise<readonly Reached[]> => {
  const { rows } = await client.query<Reached>(`
    select c.oid::regclass::text as name, rights
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (select array(
      select p from unnest('{select,insert,update,delete,truncate,references,trigger,maintain}'::text[]) as p
      where has_table_privilege(c.oid, p)
      union all
      select format('%s (%s)', p, a.attname) from unnest('{select,insert,update,references}'::text[]) as p
      join pg_attribute a on a.attrelid = c.oid and not a.attisdropped
      where has_column_privilege(c.oid, a.attnum, p) and not has_table_privilege(c.oid, p)) as rights) as reached
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 't') and n.nspname not in ('pg_catalog', 'information_schema')
      and has_schema_privilege(n.oid, 'usage') and rights <> '{}'
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
    order by 1`);
  return rows;
};

const excess = ({ name, rights }: Reached, tenant: ReadonlySet<string>): string[] => {
  const allowed = OTHERS[name];
  if (tenant.has(name)) return rights.filter((right) => !BY_ROW.test(right));
  return allowed ? rights.filter((right) => !allowed.includes(right)) : [...rights];
};

/** Relations, columns and functions of the system and of extensions that were granted later than they were installed. */
const systemGrants = (client: Client): Promise<string[]> =>
  names(
    client,
    `with object (class, id, part, name, namespace, acl, usual) as (
       select 'pg_class'::regclass, oid, 0, oid::regclass::text, relnamespace, relacl, acldefault('r', relowner) from pg_class
       union all
       select 'pg_class'::regclass, c.oid, a.attnum, c.oid::regclass || '.' || a.attname, c.relnamespace, a.attacl,
         acldefault('c', c.relowner)
       from pg_attribute a join pg_class c on c.oid = a.attrelid
       union all
       select 'pg_proc'::regclass, oid, 0, oid::regprocedure::text, pronamespace, proacl, acldefault('f', proowner) from pg_proc)
     select o.name || ': this role, or everybody, was granted it' as name
     from object o left join pg_init_privs i on i.classoid = o.class and i.objoid = o.id and i.objsubid = o.part
     where o.acl is not null
       and (o.namespace = 'pg_catalog'::regnamespace or exists (
         select from pg_depend d where d.classid = o.class and d.objid = o.id and d.deptype = 'e'))
       and exists (
         select grantee, privilege_type from aclexplode(o.acl) where grantee in (0, 'jeex_app'::regrole, current_user::regrole)
         except
         select grantee, privilege_type from aclexplode(coalesce(i.initprivs, o.usual)))
     order by 1`,
  );

/** Every way to rows that is none of the expected ones, whatever it is. */
export const rightFaults = async (client: Client, tables: readonly TenantTable[]): Promise<string[]> => {
  const tenant = new Set(tables.map(({ name }) => name));
  const reached = await readReached(client);
  return [
    ...reached.flatMap((relation) =>
      excess(relation, tenant).map((right) => `${relation.name}: this role may ${right}`),
    ),
    ...(await systemGrants(client)),
    ...(await names(
      client,
      `select relname || ' is a view' as name from pg_class where relnamespace = 'jeex'::regnamespace and relkind in ('v', 'm')
       union all
       select format('this role may create things in the schema %I', nspname) from pg_namespace
       where nspname !~ '^pg_' and has_schema_privilege(oid, 'create')`,
    )),
  ];
};
