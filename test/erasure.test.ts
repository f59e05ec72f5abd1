import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { verifyChain } from '../src/changes/verify.ts';
import { down, migrate } from '../src/db/migrator.ts';
import { createDatabase } from '../src/db/pool.ts';
import { ChangeKind } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { parseLedger } from '../src/users/ledger.ts';
import { allChanges } from './support/changes.ts';
import { runCommand } from './support/command.ts';
import { startRun } from './support/executions.ts';
import { append, newExport } from './support/exports.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { ENCRYPTION_KEY, newProject, newUser, useService } from './support/service.ts';

const service = await useService();
const { users, projects } = service;
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);

const folder = mkdtempSync(join(tmpdir(), 'jeex-erasure-'));
after(() => rmSync(folder, { recursive: true }));

const ENV = {
  DATABASE_URL: service.db.appUrl,
  MIGRATION_DATABASE_URL: service.db.ownerUrl,
  ENCRYPTION_KEYS: ENCRYPTION_KEY,
};
const command = (args: readonly string[], input?: string) => runCommand(args, ENV, input);

/** A word that stands nowhere else. */
const newMarker = (): string => `Marker${randomBytes(9).toString('hex')}`;

/** Where a word stands in any column of any table, or in the planner's samples of them, in any case of letters. */
const placesOf = async (word: string): Promise<string[]> => {
  const { rows: tables } = await admin.query(
    `select relname from pg_class where relnamespace = 'jeex'::regnamespace and relkind = 'r' order by 1`,
  );
  const texts = [...tables.map(({ relname }) => [relname, `jeex.${relname}`]), ['pg_stats', 'pg_stats']];
  const places: string[] = [];
  for (const [name, table] of texts) {
    // A row as text has bytea as hexadecimal digits.
    const { rows } = await admin.query(
      `select count(*)::int as n from ${table} t
       where strpos(lower(t::text), lower($1)) > 0 or strpos(t::text, encode(convert_to($1, 'UTF8'), 'hex')) > 0`,
      [word],
    );
    if (rows[0].n > 0) places.push(name as string);
  }
  return places;
};

const repliesOf = async (id: string): Promise<string[]> =>
  (await admin.query('select rpc from requests where user_id = $1 or actor_id = $1 order by rpc', [id])).rows.map(
    ({ rpc }) => rpc,
  );

const ledgerOf = async (id: string) =>
  (await owner.query('select erase_time, caller, correlation_id from erasures where user_id = $1', [id])).rows;

describe('erasing a user', () => {
  it('leaves nothing personal in any column of any table, whatever calls with request ids have stored', async () => {
    const [email, name, profile, oldName] = [newMarker(), newMarker(), newMarker(), newMarker()];
    const requestIds = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
    const created = await users.createUser({
      email: `${email}@example.org`,
      name: oldName,
      profile: { [profile]: profile },
      requestId: requestIds[0] as string,
    });
    const id = created.user?.id ?? '';
    const { projectId, owner: other } = await newProject(service);
    await projects.setMember({ projectId, userId: id, role: 2, requestId: randomUUID() }, { actor: other });
    await users.updateUser({ user: { id, name }, requestId: requestIds[1] as string }, { actor: id });
    await users.recordLogin({ id, requestId: requestIds[2] as string });
    await append(service, projectId, 'idea', { actor: id });
    await admin.query('analyze');
    for (const word of [email, name]) assert.deepEqual(await placesOf(word), ['users'], 'the search can find');
    assert.equal((await repliesOf(id)).length, 4);

    const correlationId = randomUUID();
    const deletion = { id, requestId: requestIds[3] as string };
    const { user } = await users.deleteUser(deletion, { actor: id, correlationId });
    for (const word of [email, name, profile, oldName]) assert.deepEqual(await placesOf(word), []);
    assert.deepEqual(await repliesOf(id), ['jeex.persistence.v1.UserService/DeleteUser']);
    assert.deepEqual((await users.deleteUser(deletion, { actor: id })).user, user);
    const { rows } = await owner.query('select * from users where id = $1', [id]);
    const { id: _, create_time, update_time, delete_time, row_version, caller, correlation_id, ...personal } = rows[0];
    assert.deepEqual(new Set(Object.values(personal)), new Set([null]), Object.keys(personal).join());
    assert.deepEqual(await ledgerOf(id), [{ erase_time: delete_time, caller, correlation_id: correlationId }]);
    await admin.query('analyze');
    for (const word of [email, name, profile, oldName]) assert.deepEqual(await placesOf(word), []);
  });

  it('is in the ledger once, and only when it was done', async () => {
    const { owner: sole } = await newProject(service);
    await assert.rejects(users.deleteUser({ id: sole }), { reason: 'LAST_OWNER' });
    assert.deepEqual(await ledgerOf(sole), []);
    const id = await newUser(service);
    await users.deleteUser({ id });
    const [first] = await ledgerOf(id);
    await users.deleteUser({ id });
    assert.deepEqual(await ledgerOf(id), [first]);
  });
});

describe('a database of before the ledger', () => {
  it('has its erased users in the ledger, and no samples of addresses, once it is migrated', async () => {
    const { ownerUrl, adminUrl } = await useTestDatabase();
    await down(ownerUrl, 11);
    const earlier = await connectAs(adminUrl);
    await earlier.query(`insert into users (email, name, caller, correlation_id)
      select i || '@before.example', 'Name ' || i, 'x', gen_random_uuid() from generate_series(1, 10) i`);
    const { rows } = await earlier.query(`update users set email = null, name = null, delete_time = now()
      where email = '1@before.example' returning id as user_id, delete_time as erase_time, caller, correlation_id`);
    await earlier.query('analyze');
    const samples = async () =>
      (await earlier.query(`select attname from pg_stats where pg_stats::text like '%@before.example%'`)).rowCount;
    assert.equal(await samples(), 2);
    await migrate(ownerUrl, { mode: 'auto' });
    assert.equal(await samples(), 0);
    assert.deepEqual((await earlier.query('select * from erasures')).rows, rows);
    await earlier.query('analyze');
    assert.equal(await samples(), 0);
  });
});

describe('the ledger of erasures', () => {
  /** Puts a user back as a restore from before its erasure would: live, and the sole owner of a project. */
  const restore = async (id: string, projectId: string): Promise<void> => {
    await owner.query(
      `update users set email = id || '@example.org', name = 'Restored', delete_time = null where id = $1`,
      [id],
    );
    await owner.query('delete from erasures where user_id = $1', [id]);
    await owner.query('delete from project_members where project_id = $1', [projectId]);
    await owner.query(`insert into project_members (project_id, user_id, role) values ($1, $2, 'OWNER')`, [
      projectId,
      id,
    ]);
  };

  it('erases again whom a restore has brought back, sole owner or not, and nobody else', async (t) => {
    const { projectId } = await newProject(service);
    const [back, erased, live] = [await newUser(service), await newUser(service), await newUser(service)];
    for (const id of [back, erased]) await users.deleteUser({ id });
    const kept = await command(['erasures', 'list', '--json']);
    assert.equal(kept.code, 0, kept.err);
    const entries = kept.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(Object.keys(entries[0]), ['userId', 'eraseTime', 'caller', 'correlationId']);
    assert.ok([back, erased].every((id) => entries.some(({ userId }) => userId === id)));
    await restore(back, projectId);
    const file = join(folder, 'ledger');
    writeFileSync(file, `${kept.out}\n{"userId": "${randomUUID()}"}\n`);

    const applied = await command(['erasures', 'apply', '--file', file, '--json']);
    assert.equal(applied.code, 0, applied.err);
    assert.deepEqual(JSON.parse(applied.out), { erased: 1, alreadyErased: entries.length - 1, unknown: 1 });
    assert.deepEqual(await placesOf(`${back}@example.org`), []);
    assert.equal((await ledgerOf(back)).length, 1);
    const { rows } = await owner.query('select owners, members from projects where id = $1', [projectId]);
    assert.deepEqual(rows, [{ owners: 0, members: 0 }]);
    assert.equal((await users.getUser({ id: live })).user?.name, 'Somebody');
    const db = await createDatabase({ url: service.db.appUrl, size: 1 });
    t.after(() => db.end());
    assert.equal((await verifyChain(db, projectId, { kept: new Map() })).verdict.faultCount, 0);
    const left = (await allChanges(service, projectId)).at(-1);
    assert.deepEqual([left?.kind, left?.resourceId, left?.caller], [ChangeKind.MEMBER_REMOVED, back, 'erasures apply']);

    const lines = (await command(['erasures', 'list'])).out;
    assert.match(lines, new RegExp(`^${back} \\d{4}-\\d\\d-\\d\\dT[0-9:.]+\\+00:00 erasures apply$`, 'm'));
    const again = await command(['erasures', 'apply'], lines);
    assert.equal(again.out, `erased 0; erased before ${entries.length}; unknown here 0\n`);
  });

  it('is not applied in part when the copy is damaged, or not there', async () => {
    const id = await newUser(service);
    const linesOf = async function* (...lines: string[]) {
      yield* lines;
    };
    assert.deepEqual(await parseLedger(linesOf(`${id} 2026`, '', `{"userId": "${id.toUpperCase()}"}`)), new Set([id]));
    for (const line of ['not a ledger', '{"userId": 5}', '{"userId"', `x${id}`]) {
      await assert.rejects(parseLedger(linesOf(id, '', line)), /line 3 of the ledger has no user id/, line);
    }
    const [damaged, absent] = await Promise.all([
      command(['erasures', 'apply'], `${id}\n${id.slice(1)}\n`),
      command(['erasures', 'apply', '--file', join(folder, 'none')]),
    ]);
    assert.deepEqual([damaged.code, absent.code], [1, 1]);
    assert.match(damaged.err, /line 2 of the ledger/);
    assert.equal((await users.getUser({ id })).user?.deleteTime, undefined);
  });
});

describe('exporting a user', () => {
  const exported = async (id: string, ...args: string[]) => {
    const { code, out, err } = await command(['user', 'export', id, ...args]);
    return { code, err, document: code === 0 ? JSON.parse(out) : null, out };
  };

  it('prints all that the database holds about it as one JSON document', async () => {
    const { projectId, editor, owner: other } = await newProject(service);
    await users.updateUser({ user: { id: editor, profile: { theme: 'dark', ключ: [1, 2] } } });
    const { project } = await projects.createProject({ name: 'Own', language: 'en' }, { actor: editor });
    for (let i = 0; i < 3; i++) await append(service, projectId, 'idea', { actor: editor });
    await append(service, projectId, 'idea', { actor: other });
    const run = await startRun(service, projectId, { actor: editor });
    const made = await newExport(service, projectId, { actor: editor });
    const { code, err, document } = await exported(editor);
    assert.equal(code, 0, err);
    const { user, ...lists } = document;
    const row = (await users.getUser({ id: editor })).user;
    assert.deepEqual([user.id, user.email, user.name, user.profile], [editor, row?.email, 'Editor', row?.profile]);
    assert.deepEqual(
      lists.memberships.map(({ projectId, role }: { projectId: string; role: string }) => [projectId, role]),
      [
        [projectId, 'EDITOR'],
        [project?.id, 'OWNER'],
      ],
    );
    const idsOf = (list: readonly { id: string }[]) => list.map(({ id }) => id);
    assert.deepEqual(idsOf(lists.projectsCreated), [project?.id]);
    assert.deepEqual(idsOf(lists.executions), [run.id]);
    assert.deepEqual(idsOf(lists.exports), [made.id]);
    const { createTime, ...version } = lists.versions[1];
    const stored = (await service.documents.getVersion({ projectId, documentType: 'idea', version: 2 })).version;
    assert.deepEqual(version, {
      projectId,
      documentType: 'idea',
      version: 2,
      contentSha256: stored?.contentSha256,
      sizeBytes: Number(stored?.sizeBytes),
      reason: stored?.reason,
    });
    assert.equal(lists.versions.length, 3);
    assert.deepEqual(
      lists.changes.map(({ kind }: { kind: string }) => kind),
      ['MEMBER_ADDED', ...Array(3).fill('VERSION_APPENDED'), 'EXECUTION_CREATED', 'EXPORT_CREATED', 'PROJECT_CREATED'],
    );
    assert.deepEqual(lists.erasures, []);
    const pretty = await exported(editor, '--pretty');
    assert.deepEqual(pretty.document, document);
    assert.match(pretty.out, /^{\n {2}"user": {\n {4}"id": .*\n {2}"erasures": \[\]\n}\n$/s);
  });

  it('reads long lists in parts', async () => {
    const { projectId, editor } = await newProject(service);
    await owner.query(
      `do $$ declare c call := row('${editor}', 'test', gen_random_uuid(), 'test', null, null, null); begin
         for i in 1 .. 5 loop
           perform record_changes(c, '${projectId}', array_fill('EXPORT_DOWNLOADED'::text, array[300]),
             array_fill(uuidv7(), array[300]), array_fill(null::text, array[300]), array_fill(null::integer, array[300]));
         end loop;
       end $$`,
    );
    const { document } = await exported(editor);
    const revisions = document.changes.map(({ revision }: { revision: number }) => revision);
    assert.equal(new Set(revisions).size, 1501);
  });

  it('says of an erased one what is left, and of nobody that there is none', async () => {
    const { projectId, editor } = await newProject(service);
    await append(service, projectId, 'idea', { actor: editor });
    await users.updateUser({ user: { id: editor, profile: { a: 1 } } });
    await users.deleteUser({ id: editor });
    const { code, err, document } = await exported(editor);
    assert.equal(code, 0);
    assert.match(err, new RegExp(`user ${editor} was erased at .*: nothing personal is left`));
    const { user, versions, memberships, erasures } = document;
    assert.deepEqual([user.email, user.name, user.profile, user.lastLoginTime], [null, null, null, null]);
    assert.deepEqual([versions.length, memberships, erasures.length], [1, [], 1]);
    const nobody = await exported(randomUUID());
    assert.equal(nobody.code, 1);
    assert.match(nobody.err, /there is no user/);
    assert.equal((await exported('x')).code, 2);
  });

  it('refuses a wrong key instead of leaving the profile out', async () => {
    const id = await newUser(service);
    await users.updateUser({ user: { id, profile: { a: 1 } } });
    const { code, out, err } = await runCommand(['user', 'export', id], {
      ...ENV,
      ENCRYPTION_KEYS: `1:${'00'.repeat(32)}`,
    });
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /users\.profile of .* does not authenticate/);
  });
});
