import type { Client } from 'pg';
import { names, type TenantTable } from './database.ts';

/**
 * What is wrong with the keys of the tenant tables: a row of one project that could stand for, point at, or be in the way of one
 * of another. A unique index that spans projects tells by its violation that another project has the value.
 */
export const keyFaults = (client: Client, tables: readonly TenantTable[]): Promise<string[]> =>
  names(
    client,
    `with tenant as (
       select c.oid, t.name, t.key, a.attnum as project
       from unnest($1::text[], $2::text[]) as t (name, key)
       join pg_class c on c.relname = t.name and c.relnamespace = 'jeex'::regnamespace
       join pg_attribute a on a.attrelid = c.oid and a.attname = t.key)
     select t.name || ': its primary key does not begin with ' || t.key as name from tenant t
     where not exists (select from pg_index i where i.indrelid = t.oid and i.indisprimary and i.indkey[0] = t.project)
     union all
     select t.name || ': ' || i.indexrelid::regclass || ' is unique across projects'
     from tenant t join pg_index i on i.indrelid = t.oid
     where (i.indisunique or i.indisexclusion) and t.project <> all ((i.indkey::int2[])[0:i.indnkeyatts - 1])
     union all
     select t.name || ': ' || f.conname || ' can point into another project'
     from tenant t join pg_constraint f on f.contype = 'f' and f.conrelid = t.oid join tenant other on other.oid = f.confrelid
     where not exists (select from unnest(f.conkey, f.confkey) as pair (own, other)
       where pair.own = t.project and pair.other = other.project)
     order by 1`,
    [tables.map(({ name }) => name), tables.map(({ key }) => key)],
  );
