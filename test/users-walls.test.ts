import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { connectAs } from './support/postgres.ts';
import { newProject, newUser, useService } from './support/service.ts';

const service = await useService();
const app = await connectAs(service.db.appUrl);
const readonly = await connectAs(service.db.urlAs('readonly'));

describe('the walls around users in the database', () => {
  const REFUSED = [
    'select email from users',
    'select name from users where id = $1',
    'select * from users',
    'select u from users u',
    'select profile from users',
    'select id from users order by last_login_time',
    `select id from users where starts_with(email, 'a')`,
    `update users set name = 'x' where id = $1`,
    'update users set id = id',
    'delete from users where id = $1',
    `insert into users (email, name, caller, correlation_id) values ('a@b.c', 'A', 'x', gen_random_uuid())`,
    'select id from users for update',
    'select id from users for share',
    'copy users to stdout',
    'table erasures',
    'delete from erasures',
    `select erase_user(row(null, 'x', gen_random_uuid(), null, null, null, null)::call,
      row($1, now(), 'x', gen_random_uuid())::erasures)`,
    'select lock_user($1)',
    `select * from begin_user_write(row(null, 'x', gen_random_uuid(), null, null, null, null)::call, $1)`,
  ];
  for (const text of REFUSED) {
    it(`refuse the app: ${text}`, async () => {
      const id = await newUser(service);
      await assert.rejects(app.query(text, text.includes('$1') ? [id] : []), { code: '42501' });
    });
  }

  it('let the app, and who may only read, see ids and which of them are erased', async () => {
    const id = await newUser(service);
    for (const role of [app, readonly]) {
      const { rows } = await role.query('select id, delete_time from users where id = $1', [id]);
      assert.deepEqual(rows, [{ id, delete_time: null }]);
    }
    for (const text of [
      'select email from users',
      'table users',
      'table erasures',
      'select * from user_by_email($1)',
    ]) {
      await assert.rejects(readonly.query(text, text.includes('$1') ? ['a'] : []), { code: '42501' }, text);
    }
  });

  it('answer by the rule: itself, fellow members and the system see a user, others that there is none', async () => {
    const { owner, viewer, stranger } = await newProject(service);
    const get = async (target: string, actor: string | null) =>
      (await app.query('select verdict, (result).id, (result).name from get_user($1, $2)', [target, actor])).rows[0];
    for (const actor of [owner, viewer, null]) {
      assert.deepEqual(await get(owner, actor), { verdict: 'OK', id: owner, name: 'Owner' });
    }
    const nobody = { id: null, name: null };
    assert.deepEqual(await get(owner, stranger), { verdict: 'USER_NOT_FOUND', ...nobody });
    assert.deepEqual(await get(owner, randomUUID()), { verdict: 'ACTOR_UNKNOWN', ...nobody });
    assert.deepEqual(await get(randomUUID(), null), { verdict: 'USER_NOT_FOUND', ...nobody });
    const call = `row($2::uuid, 'x', gen_random_uuid(), null, null, null, null)::call`;
    const WRITES = [
      `update_user(${call}, $1, null, null, 'New', null, null)`,
      `record_login(${call}, $1)`,
      `delete_user(${call}, $1)`,
    ];
    for (const write of WRITES) {
      for (const [actor, verdict] of [
        [stranger, 'USER_NOT_FOUND'],
        [viewer, 'ROLE_REQUIRED'],
      ]) {
        const { rows } = await app.query(`select verdict, (result).name from ${write}`, [owner, actor]);
        assert.deepEqual(rows, [{ verdict, name: null }], write);
      }
    }
  });

  it('let nobody but an owner of the project lock a user by making it a member', async () => {
    const { projectId, owner, editor, viewer, stranger } = await newProject(service);
    const target = await newUser(service);
    const asked = async (actor: string) => {
      await app.query('begin');
      const { rows } = await app.query(
        `select verdict from set_member(row($1::uuid, 'x', gen_random_uuid(), null, null, null, null)::call, $2, $3, 'VIEWER')`,
        [actor, projectId, target],
      );
      const xact = await app.query('select pg_current_xact_id_if_assigned() is not null as wrote');
      await app.query('rollback');
      return [rows[0].verdict, xact.rows[0].wrote];
    };
    assert.deepEqual(await asked(stranger), ['PROJECT_NOT_FOUND', false]);
    assert.deepEqual(await asked(randomUUID()), ['ACTOR_UNKNOWN', false]);
    for (const member of [editor, viewer]) assert.deepEqual(await asked(member), ['ROLE_REQUIRED', false]);
    assert.deepEqual(await asked(owner), ['OK', true]);
  });

  it('stand on functions whose names nobody can redirect', async () => {
    const { rows } = await app.query(`select proname, proconfig, pg_get_userbyid(proowner) as owner from pg_proc
      where pronamespace = 'jeex'::regnamespace and prosecdef`);
    assert.ok(rows.length > 10);
    for (const { proname, proconfig, owner } of rows) {
      assert.deepEqual([proconfig[0], owner], ['search_path=jeex, pg_temp', 'jeex_system'], proname);
    }
    await assert.rejects(app.query('create temp table users (id uuid)'), { code: '42501' });
  });
});
