import { randomUUID } from 'node:crypto';
import type { JsonObject, MessageInitShape } from '@bufbuild/protobuf';
import { callParams } from '../db/statement.ts';
import {
  type UserSchema,
  type UserService,
  UserSchema as userSchema,
} from '../gen/jeex/persistence/v1/user_service_pb.js';
import { invalidField, type Refusal, refusalOf } from '../refusal.ts';
import type { Context } from '../rpc/context.ts';
import { etag, oneOr, optionalTimestamp, rowVersionOf, timestamp, updatePaths } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { sorted } from '../rpc/identity.ts';
import { cutPage, encodedSize, pageSize } from '../rpc/page.ts';
import { profileOf } from '../sealing/identity.ts';
import type { KeyRing } from '../sealing/ring.ts';
import type { Sealing } from '../sealing/sealing.ts';
import * as statements from './sql.ts';
import { emailFault, trimmedEmail, USER_PATHS } from './users.ts';

type User = MessageInitShape<typeof UserSchema>;

const userWith = (ring: KeyRing, row: statements.UserRow): User => ({
  id: row.id,
  email: row.email ?? '',
  name: row.name ?? '',
  ...(row.profile && { profile: JSON.parse(ring.open(row.profile, profileOf(row.id)).toString()) as JsonObject }),
  createTime: timestamp(row.create_time),
  updateTime: timestamp(row.update_time),
  lastLoginTime: optionalTimestamp(row.last_login_time),
  deleteTime: optionalTimestamp(row.delete_time),
  etag: etag(row.row_version),
});

const notFound = (): Refusal => refusalOf('USER_NOT_FOUND');

/** A user's profile to be stored; nulls for none. */
const sealedProfile = ({ ring, profileMac }: Sealing, profile: JsonObject | undefined, user: string) => {
  if (profile === undefined) return { profile: null, profile_mac: null };
  // In one order of keys, so that the same profile is the same bytes: a client's map has none.
  const plain = Buffer.from(JSON.stringify(sorted(profile)));
  return { profile: ring.seal(plain, profileOf(user)), profile_mac: profileMac(plain, user) };
};

const checkedEmail = (given: string, field: string): string => {
  const email = trimmedEmail(given);
  const fault = emailFault(email);
  if (fault !== null) throw invalidField(field, fault);
  return email;
};

export const userHandlers = ({ db, pager, sealing }: Context): ServiceHandlers<typeof UserService> => {
  const toUser = (row: statements.UserRow): User => userWith(sealing.ring, row);
  return {
    createUser: async (request, call) => {
      const tail = randomUUID();
      const params = {
        tail,
        email: checkedEmail(request.email, 'email'),
        name: request.name,
        ...sealedProfile(sealing, request.profile, tail),
        ...callParams(call),
      };
      const rows = await db.run(statements.createUser, params, call);
      return { user: toUser(oneOr(rows, notFound)) };
    },

    getUser: async (request, call) => {
      const rows = await db.run(statements.getUser, { id: request.id, actor: call.actor }, call);
      return { user: toUser(oneOr(rows, notFound)) };
    },

    getUserByEmail: async (request, call) => {
      const rows = await db.run(statements.getUserByEmail, { email: trimmedEmail(request.email) }, call);
      return { user: toUser(oneOr(rows, notFound)) };
    },

    batchGetUsers: async (request, call) => {
      const rows = await db.run(statements.batchGetUsers, { ids: [...new Set(request.ids)] }, call);
      const users = rows.map(toUser);
      const fitting = cutPage(
        users,
        users.length,
        (user) => encodedSize(userSchema, user),
        () => [],
      ).rows;
      return { users: fitting as User[], truncated: fitting.length < users.length };
    },

    listUsers: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const after = pager.read(call, request, request.pageToken);
      const rows = await db.run(
        statements.listUsers,
        { prefix: request.emailPrefix, before: after === null ? null : String(after[0]), most: limit + 1 },
        call,
      );
      const page = cutPage(
        rows.map(toUser),
        limit,
        (user) => encodedSize(userSchema, user),
        (user) => [user.id ?? ''],
      );
      return { users: page.rows as User[], nextPageToken: pager.write(call, request, page.next) };
    },

    updateUser: async (request, call) => {
      const user = request.user;
      if (user === undefined) throw invalidField('user', 'is required');
      const paths = updatePaths(request.updateMask, USER_PATHS, (path) => Boolean(user[path]));
      if (paths.has('name') && user.name === '') throw invalidField('user.name', 'must have 1 to 255 characters');
      const params = {
        id: user.id,
        etag: rowVersionOf(request.etag || user.etag),
        email: paths.has('email') ? checkedEmail(user.email, 'user.email') : null,
        name: paths.has('name') ? user.name : null,
        ...sealedProfile(sealing, paths.has('profile') ? (user.profile ?? {}) : undefined, user.id),
        ...callParams(call),
      };
      const rows = await db.run(statements.updateUser, params, call);
      return { user: toUser(oneOr(rows, notFound)) };
    },

    recordLogin: async (request, call) => {
      const rows = await db.run(statements.recordLogin, { id: request.id, ...callParams(call) }, call);
      return { user: toUser(oneOr(rows, notFound)) };
    },

    deleteUser: async (request, call) => {
      const rows = await db.run(statements.deleteUser, { id: request.id, ...callParams(call) }, call);
      return { user: toUser(oneOr(rows, notFound)) };
    },
  };
};
