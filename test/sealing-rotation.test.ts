import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Client } from 'pg';
import { down, migrate } from '../src/db/migrator.ts';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { runCommand } from './support/command.ts';
import { connectAs, type TestDatabase, useTestDatabase } from './support/postgres.ts';
import { newProject, newUser, type TestService, useService } from './support/service.ts';

const OLD = `1:${'5e'.repeat(32)}`;
const NEW = `2:${'b7'.repeat(32)}`;
const THIRD = `3:${'c1'.repeat(32)}`;
const ENTRY = fileURLToPath(new URL('../src/jeex-persistence.js', import.meta.url));

const serve = (db: TestDatabase, keys: string): Promise<TestService> =>
  useService({ db, env: { ENCRYPTION_KEYS: keys } });

const envOf = (db: TestDatabase, keys: string) => ({
  DATABASE_URL: db.appUrl,
  MIGRATION_DATABASE_URL: db.ownerUrl,
  ENCRYPTION_KEYS: keys,
});

const rotateKeys = (db: TestDatabase, keys: string, ...args: string[]) =>
  runCommand(['keys', 'rotate', '--json', ...args], envOf(db, keys));

/** How many rows are under each key. */
const rowsByKey = async (admin: Client): Promise<Record<string, number>> => {
  const { rows } = await admin.query(
    `select sealing_key(envelope) as key, count(*)::int as rows from (
       select profile as envelope from users where profile is not null union all select data from execution_payloads)
     group by 1`,
  );
  return Object.fromEntries(rows.map(({ key, rows: many }) => [key, many]));
};

/** Waits until a query answers true; fails after 30 s. */
const until = async (admin: Client, condition: string): Promise<void> => {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(5)) {
    if ((await admin.query(`select (${condition}) as met`)).rows[0].met) return;
  }
  throw new Error(`waited in vain for: ${condition}`);
};

/** Starts a rotation that gets as far as a row that somebody else holds, and kills it there. */
const killHalfWay = async (db: TestDatabase, admin: Client, keys: string, payloads: number): Promise<void> => {
  const holder = await connectAs(db.adminUrl);
  await holder.query('begin');
  await holder.query(`select from execution_payloads where ctid = (
    select ctid from execution_payloads order by project_id, execution_id, kind offset ${payloads} limit 1) for update`);
  const env = { PATH: process.env.PATH, ...envOf(db, keys) };
  const child = spawn(process.execPath, [ENTRY, 'keys', 'rotate', '--batch', '5'], { env, stdio: 'ignore' });
  const exited = once(child, 'exit');
  const ofOwner = `select from pg_stat_activity where datname = current_database() and usename = 'jeex_owner'`;
  await until(admin, `exists (${ofOwner} and wait_event_type = 'Lock')`);
  child.kill('SIGKILL');
  assert.deepEqual(await exited, [null, 'SIGKILL']);
  await holder.query('rollback');
  await until(admin, `not exists (${ofOwner})`);
};

describe('a rotation of the keys', async () => {
  const db = await useTestDatabase();
  const admin = await connectAs(db.adminUrl);
  const MANY = 100;
  const runs: { projectId: string; id: string; text: string }[] = [];
  const profiles: { id: string; word: string }[] = [];
  const created = {
    email: `${randomUUID()}@example.org`,
    name: 'N',
    profile: { first: 'words' },
    requestId: randomUUID(),
  };

  /** Reads everything that is sealed, through a service. */
  const readAll = async ({ executions, users }: TestService): Promise<void> => {
    const seen = await Promise.all(profiles.map(({ id }) => users.getUser({ id })));
    assert.deepEqual(
      seen.map(({ user }) => user?.profile),
      profiles.map(({ word }) => ({ word })),
    );
    const got = await Promise.all(runs.map(({ projectId, id }) => executions.getExecution({ projectId, id })));
    const text = (payload: { data: Uint8Array } | undefined) => Buffer.from(payload?.data ?? []).toString();
    assert.deepEqual(
      got.map(({ execution }) => [text(execution?.input), text(execution?.output)]),
      runs.map((run) => [run.text, `${run.text}!`]),
    );
  };

  const first = await serve(db, OLD);
  const { projectId } = await newProject(first);
  for (let index = 0; index < 10; index += 1) {
    const [id, word] = [await newUser(first), randomUUID()];
    await first.users.updateUser({ user: { id, profile: { word } } });
    profiles.push({ id, word });
  }
  const texts = Array.from({ length: MANY }, (_, index) => `${index} ${'long '.repeat(index * 2)}`);
  const { executions } = await first.executions.batchCreateExecutions({
    projectId,
    executions: texts.map((text) => ({
      agentType: 'sealed',
      status: ExecutionStatus.COMPLETED,
      startTime: { seconds: 1n },
      completeTime: { seconds: 2n },
      input: { data: Buffer.from(text) },
      output: { data: Buffer.from(`${text}!`) },
    })),
  });
  runs.push(...executions.map(({ id }, index) => ({ projectId, id, text: texts[index] ?? '' })));
  await first.users.createUser(created);
  const { nextPageToken: pageToken } = await first.users.listUsers({ pageSize: 1 });
  await first.stop();
  const during = await serve(db, `${NEW},${OLD}`);

  it('killed half-way leaves rows under both keys, all of which are read', async () => {
    await killHalfWay(db, admin, `${NEW},${OLD}`, MANY);
    const { 1: old = 0, 2: done = 0 } = await rowsByKey(admin);
    assert.ok(old > 0 && done >= MANY, `${old} old, ${done} done`);
    await readAll(during);
  });

  it('half-way keeps out a service that has the new key alone', async () => {
    await assert.rejects(serve(db, NEW), /lacks key 1/);
  });

  it('goes on where it was, every row being read throughout, and says what may go', async () => {
    const waiting = (await rowsByKey(admin))['1'] ?? 0;
    let ended = false;
    const rotation = rotateKeys(db, `${NEW},${OLD}`, '--batch', '3').finally(() => {
      ended = true;
    });
    let reads = 0;
    for (; !ended || reads === 0; reads += 1) await readAll(during);
    const { code, out, err } = await rotation;
    assert.equal(code, 0, err);
    const { rows, of, key, removed } = JSON.parse(out);
    assert.deepEqual({ rows, of, key, removed }, { rows: waiting, of: waiting, key: 2, removed: [1] });
    assert.match(err, new RegExp(`${waiting} of ${waiting} rows sealed again, [0-9.]+ [KM]iB, [0-9.]+ [KM]iB/s`));
    assert.deepEqual(Object.keys(await rowsByKey(admin)), ['2']);
  });

  it('leaves its state to be seen', async () => {
    const { out } = await runCommand(['keys', 'status', '--json'], envOf(db, NEW));
    const { keys, used } = JSON.parse(out) as { keys: unknown; used: { column: string; key: number; rows: number }[] };
    assert.deepEqual(keys, [{ key: 2, retired: false }]);
    assert.deepEqual(
      used.map(({ column, key, rows }) => [column, key, rows]),
      [
        ['users.profile', 2, profiles.length + 1],
        ['execution_payloads.data', 2, 2 * MANY],
      ],
    );
  });

  it('lets a service do with the new key alone: rows, replies and page tokens of before', async () => {
    const after = await serve(db, NEW);
    await readAll(after);
    const again = await after.users.createUser(created);
    assert.deepEqual(again.user?.profile, created.profile);
    assert.deepEqual(again, await during.users.createUser(created));
    assert.equal((await after.users.listUsers({ pageSize: 1, pageToken })).users.length, 1);
    await assert.rejects(serve(db, OLD), /lacks key 2/);
    await after.stop();
  });

  it('answers a repeated request with the profile of today, where the key of the first answer is gone', async () => {
    const id = (await during.users.createUser(created)).user?.id ?? '';
    await during.users.updateUser({ user: { id, profile: { second: 'words' } } });
    assert.deepEqual((await during.users.createUser(created)).user?.profile, { second: 'words' });
  });
});

describe('a service that was left behind', async () => {
  const db = await useTestDatabase();
  const behind = await serve(db, `${OLD},${NEW}`);
  const { projectId } = await newProject(behind);
  const create = (service: TestService) =>
    service.executions.createExecution({ projectId, agentType: 'sealed', input: { data: Buffer.from('x') } });

  it('cannot seal under a key that was taken out, and still reads', async () => {
    const { execution } = await create(behind);
    const ahead = await serve(db, `${NEW},${OLD}`);
    await create(behind);
    assert.equal((await rotateKeys(db, `${NEW},${OLD}`)).code, 0);
    await assert.rejects(create(behind), { reason: 'INTERNAL' });
    await create(ahead);
    assert.ok((await behind.executions.getExecution({ projectId, id: execution?.id ?? '' })).execution?.input);
  });

  it('makes its key known when it starts again, and a rotation takes that back', async () => {
    const again = await serve(db, `${OLD},${NEW}`);
    await create(again);
    await assert.rejects(serve(db, NEW), /lacks key 1/);
    assert.deepEqual(JSON.parse((await rotateKeys(db, `${NEW},${OLD}`)).out).removed, [1]);
    await (await serve(db, NEW)).stop();
  });

  it('does not start while its key is being taken out', async () => {
    const admin = await connectAs(db.adminUrl);
    await admin.query('update sealing_keys set retired = true where key_id = 2');
    await assert.rejects(serve(db, `${NEW},${OLD}`), /key 2 was retired .* put the new key first/);
    await (await serve(db, `${THIRD},${NEW}`)).stop();
  });
});

describe('a row that does not open', async () => {
  const db = await useTestDatabase();
  const admin = await connectAs(db.adminUrl);
  const service = await serve(db, OLD);

  it('is named by the rotation, which seals the others and takes no key out', async () => {
    const [broken, whole] = [await newUser(service), await newUser(service)];
    for (const id of [broken, whole]) await service.users.updateUser({ user: { id, profile: { id } } });
    await admin.query('update users set profile = set_byte(profile, 20, get_byte(profile, 20) # 1) where id = $1', [
      broken,
    ]);
    const { code, err } = await rotateKeys(db, `${NEW},${OLD}`);
    assert.equal(code, 1);
    assert.match(
      err,
      new RegExp(`1 of the sealed rows could not be opened[^]*users\\.profile of ${broken} does not authenticate`),
    );
    assert.deepEqual(await rowsByKey(admin), { 1: 1, 2: 1 });
    await assert.rejects(serve(db, NEW), /lacks key 1/);
  });
});

describe('rows of release 0.1.0', async () => {
  const db = await useTestDatabase();
  const admin = await connectAs(db.adminUrl);
  const [user, project, run] = [randomUUID(), randomUUID(), randomUUID()];
  const input = 'what an agent was given '.repeat(500);

  before(async () => {
    await down(db.ownerUrl, 9);
    const unsealed = (text: string) => Buffer.concat([Buffer.from([0, 0]), Buffer.from(text)]);
    await admin.query(
      `insert into users (id, email, name, profile, caller, correlation_id)
       values ($1, 'old@example.org', 'Old', $2, 'test', gen_random_uuid())`,
      [user, unsealed('{"theme":"dark"}')],
    );
    await admin.query(`insert into projects (id, name, language) values ($1, 'Old', 'en')`, [project]);
    await admin.query(
      `insert into agent_executions (project_id, id, agent_type, correlation_id, caller, project_revision)
       values ($1, $2, 'old', gen_random_uuid(), 'test', 0)`,
      [project, run],
    );
    await admin.query(
      `insert into execution_payloads (project_id, execution_id, kind, content_type, data)
       values ($1, $2, 'input', 'text/plain', $3)`,
      [project, run, unsealed(input)],
    );
    await migrate(db.ownerUrl, { mode: 'auto' });
  });

  it('keep a service from starting, with what to do', async () => {
    await assert.rejects(serve(db, OLD), /not sealed yet: run `jeex-persistence keys rotate`/);
  });

  it('are sealed by a rotation, and then read and compared like any', async () => {
    const { out, err } = await rotateKeys(db, OLD);
    assert.equal(JSON.parse(out).rows, 2, err);
    assert.deepEqual(await rowsByKey(admin), { 1: 2 });
    const { users, executions } = await serve(db, OLD);
    const before = await users.getUser({ id: user });
    assert.deepEqual(before.user?.profile, { theme: 'dark' });
    const same = await users.updateUser({ user: { id: user, profile: { theme: 'dark' } } });
    assert.equal(same.user?.etag, before.user?.etag);
    const { execution } = await executions.getExecution({ projectId: project, id: run });
    assert.equal(Buffer.from(execution?.input?.data ?? []).toString(), input);
  });
});
