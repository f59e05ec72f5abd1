import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { connectAs } from './support/postgres.ts';
import { newProject, newUser, useService } from './support/service.ts';

const service = await useService();
const { users, projects } = service;
const admin = await connectAs(service.db.adminUrl);

describe('users', () => {
  it('keeps an address trimmed and unique without regard to case', async () => {
    const { user } = await users.createUser({ email: '  Ann@Example.org ', name: 'Ann', profile: { theme: 'dark' } });
    assert.equal(user?.email, 'Ann@Example.org');
    assert.deepEqual(user?.profile, { theme: 'dark' });
    await assert.rejects(users.createUser({ email: 'ANN@example.ORG', name: 'Ann' }), { reason: 'EMAIL_TAKEN' });
    const found = await users.getUserByEmail({ email: ' ann@example.org' });
    assert.equal(found.user?.id, user?.id);
  });

  it('counts an address after it was trimmed', async () => {
    const email = `${randomUUID()}${'x'.repeat(207)}@example.org`;
    assert.equal(email.length, 255);
    assert.equal((await users.createUser({ email: `  ${email}\t`, name: 'Ann' })).user?.email, email);
    await assert.rejects(users.createUser({ email: `x${email}`, name: 'Ann' }), {
      reason: 'INVALID_FIELD',
      fields: ['email'],
    });
  });

  it('knows the call that wrote a user last', async () => {
    const correlationId = randomUUID();
    const id = await newUser(service);
    await users.recordLogin({ id }, { correlationId });
    const { rows } = await admin.query('select caller, correlation_id from jeex.users where id = $1', [id]);
    assert.deepEqual(rows, [{ caller: 'anonymous', correlation_id: correlationId }]);
  });

  it('takes a profile in another order of keys, and an empty mask, for no change', async () => {
    const id = await newUser(service);
    const { user } = await users.updateUser({ user: { id, profile: { a: 1, b: { c: 2, d: 3 } } } });
    const same = await users.updateUser({
      user: { id, profile: { b: { d: 3, c: 2 }, a: 1 } },
      updateMask: { paths: [] },
    });
    assert.equal(same.user?.etag, user?.etag);
    const named = await users.updateUser({ user: { id, name: 'By an empty mask' }, updateMask: { paths: [] } });
    assert.equal(named.user?.name, 'By an empty mask');
  });

  it('shows a user to itself, to fellow members and to the system, and to nobody else', async () => {
    const { owner, viewer, stranger } = await newProject(service);
    for (const actor of [undefined, owner, viewer]) {
      assert.equal((await users.getUser({ id: owner }, { actor })).user?.id, owner);
    }
    await assert.rejects(users.getUser({ id: owner }, { actor: stranger }), { reason: 'USER_NOT_FOUND' });
    await assert.rejects(users.updateUser({ user: { id: owner, name: 'X' } }, { actor: stranger }), {
      reason: 'USER_NOT_FOUND',
    });
    await assert.rejects(users.updateUser({ user: { id: owner, name: 'X' } }, { actor: viewer }), {
      reason: 'ROLE_REQUIRED',
    });
  });

  it('updates the fields its mask names, or those that are populated, and nothing when nothing changes', async () => {
    const id = await newUser(service);
    const first = await users.updateUser({
      user: { id, name: 'New', email: 'ignored@example.org' },
      updateMask: { paths: ['name'] },
    });
    assert.equal(first.user?.name, 'New');
    assert.notEqual(first.user?.email, 'ignored@example.org');
    const same = await users.updateUser({ user: { id, name: 'New' } });
    assert.equal(same.user?.etag, first.user?.etag);
    await assert.rejects(users.updateUser({ user: { id, name: 'Newer' }, etag: 'v1' }), { reason: 'ETAG_MISMATCH' });
    await assert.rejects(users.updateUser({ user: { id }, updateMask: { paths: ['create_time'] } }), {
      reason: 'INVALID_FIELD',
    });
    await assert.rejects(users.updateUser({ user: { id }, updateMask: { paths: ['name'] } }), {
      reason: 'INVALID_FIELD',
    });
  });

  it('lists newest first, in pages, by the start of the address', async () => {
    const prefix = `p${randomUUID().slice(0, 8)}`;
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) {
      ids.unshift((await users.createUser({ email: `${prefix}-${i}@example.org`, name: 'N' })).user?.id ?? '');
    }
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = await users.listUsers({ pageSize: 2, pageToken, emailPrefix: prefix.toUpperCase() });
      seen.push(...page.users.map(({ id }) => id));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    assert.deepEqual(seen, ids);
    const got = await users.batchGetUsers({ ids: [ids[0] ?? '', randomUUID(), ids[3] ?? ''] });
    assert.deepEqual(
      got.users.map(({ id }) => id),
      [ids[0], ids[3]],
    );
  });

  it('erases a user: nothing personal stays, memberships end, its own retry is answered', async () => {
    const { projectId, editor, owner } = await newProject(service);
    const requestId = randomUUID();
    const { user } = await users.deleteUser({ id: editor, requestId }, { actor: editor });
    assert.ok(user?.deleteTime);
    assert.equal(user?.email + user?.name, '');
    assert.deepEqual(
      await users.deleteUser({ id: editor, requestId }, { actor: editor }),
      await users.deleteUser({ id: editor, requestId }, { actor: editor }),
    );
    await assert.rejects(users.recordLogin({ id: editor }, { actor: editor }), { reason: 'ACTOR_UNKNOWN' });
    const { members } = await projects.listMembers({ projectId }, { actor: owner });
    assert.ok(members.every(({ userId }) => userId !== editor));
    await assert.rejects(users.deleteUser({ id: owner }, { actor: owner }), { reason: 'LAST_OWNER' });
  });
});
