import { z } from 'zod';
import { pointOf, sql, statement, write } from '../db/statement.ts';

const row = z.object({
  id: z.string(),
  email: z.string().nullable(),
  name: z.string().nullable(),
  profile: z.instanceof(Buffer).nullable(),
  create_time: z.bigint(),
  update_time: z.bigint(),
  last_login_time: z.bigint().nullable(),
  delete_time: z.bigint().nullable(),
  row_version: z.bigint(),
});
export type UserRow = z.infer<typeof row>;

/** A user for itself, a fellow member or the system; USER_NOT_FOUND to others. */
export const getUser = pointOf({
  name: 'users.get',
  params: { id: 'uuid', actor: 'uuid?' },
  row,
  select: sql.fragment`got.verdict, (got.result).*`,
  from: (p) => sql.fragment`get_user(${p.id}, ${p.actor}) as got`,
});

/** A live user by its address, in any case of letters. */
export const getUserByEmail = statement({
  name: 'users.get_by_email',
  params: { email: 'text' },
  row,
  sql: (p) => sql.fragment`select u.* from user_by_email(${p.email}) as u`,
});

/** Those of the users that exist, in the order asked for. */
export const batchGetUsers = statement({
  name: 'users.batch_get',
  params: { ids: 'uuid[]' },
  row,
  sql: (p) => sql.fragment`select u.* from users_by_id(${p.ids}) as u`,
});

/** Newest first, before a user; by the start of the address in any case of letters. */
export const listUsers = statement({
  name: 'users.list',
  params: { prefix: 'text', before: 'uuid?', most: 'int4' },
  row,
  sql: (p) => sql.fragment`select u.* from list_users(${p.prefix}, ${p.before}, ${p.most}) as u`,
});

/** `tail` is a UUID that the new id will end as. */
export const createUser = write({
  name: 'users.create',
  params: { tail: 'uuid', email: 'text', name: 'text', profile: 'bytea?', profile_mac: 'bytea?' },
  row,
  sql: (p, call) =>
    sql.fragment`create_user(${call}, ${p.tail}, ${p.email}, ${p.name}, ${p.profile}, ${p.profile_mac})`,
});

/** Null leaves a field as it is. */
export const updateUser = write({
  name: 'users.update',
  params: { id: 'uuid', etag: 'int8?', email: 'text?', name: 'text?', profile: 'bytea?', profile_mac: 'bytea?' },
  row,
  sql: (p, call) =>
    sql.fragment`update_user(${call}, ${p.id}, ${p.etag}, ${p.email}, ${p.name}, ${p.profile}, ${p.profile_mac})`,
});

export const recordLogin = write({
  name: 'users.record_login',
  params: { id: 'uuid' },
  row,
  sql: (p, call) => sql.fragment`record_login(${call}, ${p.id})`,
});

export const deleteUser = write({
  name: 'users.delete',
  params: { id: 'uuid' },
  row,
  sql: (p, call) => sql.fragment`delete_user(${call}, ${p.id})`,
});
