import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { verifyChain } from '../src/changes/verify.ts';
import { applyErasures } from '../src/commands/erasures.ts';
import { createDatabase } from '../src/db/pool.ts';
import { ChangeKind } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { down, migrate } from '../src/migrator/migrate.ts';
import { exportUser } from '../src/users/export.ts';
import { applyEntry, type Erasure, formatEntry, parseLedger, readLedger } from '../src/users/ledger.ts';
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

describe('the samples of the planner', () => {
  it('hold nothing that people wrote, so that nothing outlives its project or user there', async () => {
    const marker = newMarker();
    const { projectId, editor } = await newProject(service);
    const project = { id: projectId, name: marker, metadata: { [marker]: marker } };
    await projects.updateProject({ project }, { actor: editor });
    for (let i = 0; i < 3; i++) {
      const version = {
        projectId,
        documentType: 'idea',
        content: `${marker} ${i}`,
        reason: marker,
        metadata: { [marker]: i },
      };
      await service.documents.appendVersion(version, { actor: editor });
      const run = await startRun(service, projectId, { actor: editor });
      await service.executions.failExecution({
        projectId,
        id: run.id,
        leaseToken: run.leaseToken,
        errorMessage: marker,
      });
    }
    await owner.query(`update documents d set search = to_tsvector('simple', $1) where project_id = $2`, [
      marker,
      projectId,
    ]);
    await admin.query('analyze');
    assert.deepEqual(await placesOf(marker), [
      'agent_executions',
      'document_bodies',
      'document_versions',
      'documents',
      'projects',
    ]);
  });

  it('are of columns that say nothing of anybody: whoever adds one decides', async () => {
    const { rows } = await owner.query(`select t.relname || '.' || a.attname as name
      from pg_attribute a join pg_class t on t.oid = a.attrelid
      where t.relnamespace = 'jeex'::regnamespace and t.relkind = 'r' and a.attnum > 0 and not a.attisdropped
        and a.atttypid in ('text'::regtype, 'jsonb'::regtype, 'bytea'::regtype, 'tsvector'::regtype)
        and a.attstattarget is distinct from 0
        and a.attname not in ('caller', 'chain', 'rpc', 'status', 'kind', 'document_type', 'language', 'visibility', 'role')
      order by 1`);
    assert.deepEqual(
      rows.map(({ name }) => name).filter((name) => !name.startsWith('schemaversion.')),
      [
        'agent_executions.agent_type',
        'agent_executions.model',
        'document_bodies.sha256',
        'document_versions.content_sha256',
        'execution_payloads.content_type',
        'exports.file_sha256',
        'exports.manifest',
        'schemaprogress.action',
        'sealing_keys.secret',
      ],
    );
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
    await earlier.query(
      `insert into projects (name, language) select 'of @before.example', 'en' from generate_series(1, 2)`,
    );
    await earlier.query('analyze');
    const samples = async () =>
      (await earlier.query(`select attname from pg_stats where pg_stats::text like '%@before.example%'`)).rowCount;
    assert.equal(await samples(), 3);
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
    const [entry] = await ledgerOf(back);
    const kept = await command(['erasures', 'list', '--json']);
    assert.equal(kept.code, 0, kept.err);
    const entries: Erasure[] = kept.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(Object.keys(entries[0] ?? {}), ['userId', 'eraseTime', 'correlationId', 'caller']);
    assert.ok([back, erased].every((id) => entries.some(({ userId }) => userId === id)));
    await restore(back, projectId);

    const applied = await command(['erasures', 'apply', '--json'], entries.map(formatEntry).join('\n'));
    assert.equal(applied.code, 0, applied.err);
    assert.deepEqual(JSON.parse(applied.out), { erased: 1, alreadyErased: entries.length - 1, unknown: 0 });
    assert.deepEqual(await placesOf(`${back}@example.org`), []);
    assert.deepEqual(await ledgerOf(back), [entry], 'the ledger says what it said before the restore');
    assert.deepEqual((await owner.query('select delete_time from users where id = $1', [back])).rows, [
      { delete_time: entry?.erase_time },
    ]);
    const { rows } = await owner.query('select owners, members from projects where id = $1', [projectId]);
    assert.deepEqual(rows, [{ owners: 0, members: 0 }]);
    assert.equal((await users.getUser({ id: live })).user?.name, 'Somebody');
    const db = await createDatabase({ url: service.db.appUrl, size: 1 });
    t.after(() => db.end());
    assert.equal((await verifyChain(db, projectId, { kept: new Map() })).verdict.faultCount, 0);
    const left = (await allChanges(service, projectId)).at(-1);
    assert.deepEqual([left?.kind, left?.resourceId, left?.caller], [ChangeKind.MEMBER_REMOVED, back, 'erasures apply']);
  });

  it('keeps the entries of users who are not here, for when an import brings them', async () => {
    const id = randomUUID();
    const times = { eraseTime: '2026-01-02T03:04:05.678901+00:00', correlationId: randomUUID() };
    const entry = { userId: id, ...times, caller: 'of another database' };
    assert.equal(await applyEntry(owner, entry, randomUUID()), 'UNKNOWN');
    const listed = (await Readable.from(readLedger(owner)).toArray()) as Erasure[];
    assert.deepEqual(
      listed.filter(({ userId }) => userId === id),
      [entry],
    );
    await owner.query(
      `insert into users (id, email, name, caller, correlation_id) values ($1, $2, 'Imported', 'import', gen_random_uuid())`,
      [id, `${id}@example.org`],
    );
    assert.equal(await applyEntry(owner, { ...entry, caller: 'another' }, randomUUID()), 'ERASED');
    assert.equal(await applyEntry(owner, entry, randomUUID()), 'ALREADY_ERASED');
    assert.deepEqual(await placesOf(`${id}@example.org`), []);
    assert.equal((await ledgerOf(id))[0]?.caller, entry.caller, 'the first entry stays');
  });

  it('is not applied in part when the copy is damaged, or not there', async () => {
    const linesOf = async function* (...lines: string[]) {
      yield* lines;
    };
    const entry: Erasure = {
      userId: randomUUID(),
      eraseTime: '2026-01-02T03:04:05.678901+00:00',
      correlationId: randomUUID(),
      caller: 'a caller with blanks',
    };
    const other = { ...entry, userId: randomUUID(), caller: '' };
    const copy = linesOf(formatEntry(entry), '', JSON.stringify(other), formatEntry({ ...entry, caller: 'again' }));
    assert.deepEqual([...(await parseLedger(copy)).values()], [entry, other]);
    const { caller: _, ...partial } = entry;
    const DAMAGED = [
      'not a ledger',
      '{"userId": 5}',
      '{"userId"',
      `x${formatEntry(entry)}`,
      entry.userId,
      formatEntry({ ...entry, eraseTime: 'yesterday' }),
      JSON.stringify(partial),
    ];
    for (const line of DAMAGED) {
      const damaged = parseLedger(linesOf(formatEntry(entry), '', line));
      await assert.rejects(damaged, /line 3 of the ledger is no entry/, line);
    }
    await assert.rejects(applyErasures({ file: join(tmpdir(), randomUUID()), json: false }), { code: 'ENOENT' });
  });
});

describe('exporting a user', () => {
  const exported = (id: string, ...args: string[]) => command(['user', 'export', id, ...args]);

  it('prints all that the database holds about it as one JSON document', async () => {
    const { projectId, editor, owner: other } = await newProject(service);
    await users.updateUser({ user: { id: editor, profile: { theme: 'dark', ключ: [1, 2] } } });
    const { project } = await projects.createProject({ name: 'Own', language: 'en' }, { actor: editor });
    for (let i = 0; i < 3; i++) await append(service, projectId, 'idea', { actor: editor });
    await append(service, projectId, 'idea', { actor: other });
    const run = await startRun(service, projectId, { actor: editor });
    const made = await newExport(service, projectId, { actor: editor });
    const failed = await startRun(service, projectId, { actor: editor });
    const amounts = { model: 'model-1', inputTokens: 5n, outputTokens: 7n, costMicros: 11n };
    await service.executions.completeExecution({ projectId, id: run.id, leaseToken: run.leaseToken, ...amounts });
    const { id: failedId, leaseToken } = failed;
    await service.executions.failExecution({ projectId, id: failedId, leaseToken, errorMessage: 'It broke' });
    const { code, err, out } = await exported(editor, '--pretty');
    assert.equal(code, 0, err);
    assert.match(out, /^{\n {2}"user": {\n {4}"id": .*\n {2}"erasures": \[\]\n}\n$/s);
    const { user, ...lists } = JSON.parse(out);
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
    assert.deepEqual(idsOf(lists.executions), [run.id, failed.id]);
    assert.equal(lists.executions[1].errorMessage, 'It broke');
    const { model, inputTokens, outputTokens, costMicros } = lists.executions[0];
    assert.deepEqual([model, inputTokens, outputTokens, costMicros], ['model-1', 5, 7, 11]);
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
      [
        'MEMBER_ADDED',
        ...Array(3).fill('VERSION_APPENDED'),
        'EXECUTION_CREATED',
        'EXPORT_CREATED',
        'EXECUTION_CREATED',
        'PROJECT_CREATED',
      ],
    );
    assert.deepEqual(lists.erasures, []);
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
    const found = await exportUser(await connectAs(service.db.ownerUrl), editor, () => null);
    const changes = found?.lists.find(([name]) => name === 'changes')?.[1] ?? [];
    const revisions = (await Readable.from(changes).toArray()).map(({ revision }: { revision: number }) => revision);
    assert.equal(new Set(revisions).size, 1501);
  });

  it('says of an erased one what is left, and of nobody that there is none', async () => {
    const { projectId, editor } = await newProject(service);
    await append(service, projectId, 'idea', { actor: editor });
    await users.updateUser({ user: { id: editor, profile: { a: 1 } } });
    await users.deleteUser({ id: editor });
    const { code, err, out } = await exported(editor);
    assert.equal(code, 0, err);
    assert.match(err, new RegExp(`user ${editor} was erased at .*: nothing personal is left`));
    const { user, versions, memberships, erasures } = JSON.parse(out);
    assert.deepEqual([user.email, user.name, user.profile, user.lastLoginTime], [null, null, null, null]);
    assert.deepEqual([versions.length, memberships, erasures.length], [1, [], 1]);
    assert.equal(await exportUser(await connectAs(service.db.ownerUrl), randomUUID(), () => null), null);
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
