import { z } from 'zod';
import { sql, statement } from '../db/statement.ts';

const keyRow = z.object({ key_id: z.number(), secret: z.instanceof(Buffer), retired: z.boolean() });
export type KeyRow = z.infer<typeof keyRow>;

/** The keys this database is sealed with, each with the database's secret as sealed under it. */
export const sealingKeys = statement({
  name: 'sealing.keys',
  params: {},
  row: keyRow,
  sql: () => sql.fragment`select key_id, secret, retired from sealing_keys order by key_id`,
});

/** Adds a key; false when somebody else came first. `first` for the one a new database begins with. */
export const registerKey = statement({
  name: 'sealing.register',
  params: { key_id: 'int4', secret: 'bytea', first: 'bool' },
  row: z.object({ registered: z.boolean() }),
  sql: (p) => sql.fragment`select register_sealing_key(${p.key_id}, ${p.secret}, ${p.first}) as registered`,
});

/** Whether the database knows that it holds no row of release 0.1.0, which sealed nothing: nothing is scanned. */
export const allSealed = statement({
  name: 'sealing.all_sealed',
  params: {},
  row: z.object({ sealed: z.boolean() }),
  sql: () => sql.fragment`
select count(*) = 2 as sealed from pg_constraint
where convalidated and (conrelid, conname) in (
  ('users'::regclass, 'users_profile_sealed'), ('execution_payloads'::regclass, 'execution_payloads_data_sealed'))`,
});
