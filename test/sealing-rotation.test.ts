import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Client } from 'pg';
import { openClient } from '../src/db/connection.ts';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { down, migrate } from '../src/migrator/migrate.ts';
import { dropKey } from '../src/sealing/drop.ts';
import { parseRing } from '../src/sealing/ring.ts';
import { type Rotated, rotate } from '../src/sealing/rotate.ts';
import { runCommand } from './support/command.ts';
import { connectAs, type TestDatabase, useTestDatabase } from './support/postgres.ts';
import { newProject, newUser, type TestService, useService } from './support/service.ts';
import { BASE_ENVIRONMENT } from './support/spawned.ts';
import { until } from './support/until.ts';

const OLD = `1:${'5e'.repeat(32)}`;
const NEW = `2:${'b7'.repeat(32)}`;
const THIRD = `3:${'c1'.repeat(32)}`;
const FOURTH = `4:${'d0'.repeat(32)}`;
const ENTRY = fileURLToPath(new URL('../src/jeex-persistence.js', import.meta.url));

const serve = (db: TestDatabase, keys: string): Promise<TestService> =>
  useService({ db, env: { ENCRYPTION_KEYS: keys } });

const envOf = (db: TestDatabase, keys: string) => ({
  DATABASE_URL: db.appUrl,
  MIGRATION_DATABASE_URL: db.ownerUrl,
  ENCRYPTION_KEYS: keys,
});

/** The work of a command of the owner, in this process: starting one takes longer than all it does here. */
const asOwner = async <T>(db: TestDatabase, work: (client: Client) => Promise<T>): Promise<T> => {
  const client = await openClient(db.ownerUrl, 'test');
  try {
    await client.query('set search_path = jeex');
    return await work(client);
  } finally {
    await client.end();
  }
};

const log = { info: () => {} };

const rotateKeys = (db: TestDatabase, keys: string): Promise<Rotated> => {
  const ring = parseRing(keys, 'TEST');
  const { signal } = new AbortController();
  return asOwner(db, (client) =>
    rotate({ client, url: db.ownerUrl, ring, batch: 100, signal, log, onProgress: () => {} }),
  );
};

const drop = (db: TestDatabase, keys: string, key: number): Promise<void> =>
  asOwner(db, (client) => dropKey({ client, ring: parseRing(keys, 'TEST'), key, log }));

const keysOf = async (admin: Client): Promise<number[]> =>
  (await admin.query('select key_id from sealing_keys order by key_id')).rows.map(({ key_id }) => key_id);

/** How many rows are under each key. */
const rowsByKey = async (admin: Client): Promise<Record<string, number>> => {
  const { rows } = await admin.query(
    `select sealing_key(envelope) as key, count(*)::int as rows from (
       select profile as envelope from users where profile is not null union all select data from execution_payloads)
     group by 1`,
  );
  return Object.fromEntries(rows.map(({ key, rows: many }) => [key, many]));
};

/** Waits until a condition of SQL is met. */
const untilMet = (admin: Client, condition: string): Promise<void> =>
  until(async () => (await admin.query(`select (${condition}) as met`)).rows[0].met, condition);

const OWNERS = `select from pg_stat_activity where datname = current_database() and usename = 'jeex_owner'`;
const OWNER_WAITS = `exists (${OWNERS} and wait_event_type = 'Lock')`;

/** Starts a rotation that gets as far as a row that somebody else holds, and kills it there. */
const killHalfWay = async (db: TestDatabase, admin: Client, keys: string, payloads: number): Promise<void> => {
  const holder = await connectAs(db.adminUrl);
  await holder.query('begin');
  await holder.query(`select from execution_payloads where ctid = (
    select ctid from execution_payloads order by project_id, execution_id, kind offset ${payloads} limit 1) for update`);
  const env = { ...BASE_ENVIRONMENT, ...envOf(db, keys) };
  const child = spawn(process.execPath, [ENTRY, 'keys', 'rotate', '--batch', '5'], { env, stdio: 'ignore' });
  const exited = once(child, 'exit');
  await untilMet(admin, OWNER_WAITS);
  child.kill('SIGKILL');
  assert.deepEqual(await exited, [null, 'SIGKILL']);
  await holder.query('rollback');
  await untilMet(admin, `not exists (${OWNERS})`);
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
    const command = ['keys', 'rotate', '--json', '--batch', '3'];
    const rotation = runCommand(command, envOf(db, `${NEW},${OLD}`)).finally(() => {
      ended = true;
    });
    let reads = 0;
    for (; !ended || reads === 0; reads += 1) await readAll(during);
    const { code, out, err } = await rotation;
    assert.equal(code, 0, err);
    const { bytes, ...rotated } = JSON.parse(out);
    assert.deepEqual(rotated, { rows: waiting, of: waiting, key: 2, removed: [1], hadPlain: false });
    assert.ok(bytes > 0);
    assert.doesNotMatch(err, /vacuum full/);
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
  const admin = await connectAs(db.adminUrl);
  const behind = await serve(db, `${OLD},${NEW}`);
  const { projectId } = await newProject(behind);
  const create = (service: TestService) =>
    service.executions.createExecution({ projectId, agentType: 'sealed', input: { data: Buffer.from('x') } });

  it('cannot seal under a key that was taken out, and still reads', async () => {
    const { execution } = await create(behind);
    const ahead = await serve(db, `${NEW},${OLD}`);
    await create(behind);
    await rotateKeys(db, `${NEW},${OLD}`);
    await assert.rejects(create(behind), { reason: 'INTERNAL' });
    await create(ahead);
    assert.ok((await behind.executions.getExecution({ projectId, id: execution?.id ?? '' })).execution?.input);
  });

  it('makes its key known when it starts again, and a rotation takes that back', async () => {
    const again = await serve(db, `${OLD},${NEW}`);
    await create(again);
    await assert.rejects(serve(db, NEW), /lacks key 1/);
    assert.deepEqual((await rotateKeys(db, `${NEW},${OLD}`)).removed, [1]);
    await (await serve(db, NEW)).stop();
  });

  it('is told of by the rotation, when it is the one with the older ring: a key that is not in it stays', async () => {
    const holder = await connectAs(db.adminUrl);
    await holder.query('begin; select from execution_payloads for update');
    const refused = assert.rejects(
      rotateKeys(db, `${THIRD},${NEW}`),
      /service has started with key 4 .* run this again/,
    );
    await untilMet(admin, OWNER_WAITS);
    const ahead = await serve(db, `${FOURTH},${THIRD},${NEW}`);
    await holder.query('rollback');
    await refused;
    assert.deepEqual(await keysOf(admin), [2, 3, 4]);
    await create(ahead);
    assert.deepEqual((await rotateKeys(db, `${FOURTH},${THIRD},${NEW}`)).removed, [2, 3]);
    await create(ahead);
  });

  it('does not start while its key is being taken out', async () => {
    await admin.query('update sealing_keys set retired = true where key_id = 4');
    await assert.rejects(serve(db, `${FOURTH},${NEW}`), /key 4 was retired .* put the new key first/);
    await (await serve(db, `${THIRD},${FOURTH}`)).stop();
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
    await assert.rejects(
      rotateKeys(db, `${NEW},${OLD}`),
      new RegExp(`1 of the sealed rows could not be opened[^]*users\\.profile of ${broken} does not authenticate`),
    );
    assert.deepEqual(await rowsByKey(admin), { 1: 1, 2: 1 });
    await assert.rejects(serve(db, NEW), /lacks key 1/);
  });

  it('keeps its key from being dropped, as does whatever else makes the database need one', async () => {
    const both = `${NEW},${OLD}`;
    await assert.rejects(drop(db, both, 1), /1 row of users\.profile is sealed under key 1/);
    await assert.rejects(drop(db, both, 3), /knows no key 3/);
    await rotateKeys(db, `${THIRD},${both}`).catch(() => {});
    await assert.rejects(drop(db, THIRD, 3), /no other key of ENCRYPTION_KEYS opens/);
    await drop(db, both, 2);
    assert.deepEqual(await keysOf(admin), [1, 3]);
  });

  it('is not what stands in the way of a key that nobody has: it is dropped as the refused start says', async () => {
    const keys = `${THIRD},${OLD}`;
    const app = await connectAs(db.appUrl);
    await app.query(`insert into sealing_keys (key_id, secret) values (77, decode(repeat('00', 62), 'hex'))`);
    await assert.rejects(serve(db, keys), /lacks key 77.* `jeex-persistence keys drop 77`/);
    const { code, out, err } = await runCommand(['keys', 'drop', '77'], envOf(db, keys));
    assert.deepEqual({ code, out }, { code: 0, out: 'no service needs key 77 any more\n' }, err);
    await (await serve(db, keys)).stop();
  });
});

describe('rows of release 0.1.0', async () => {
  const db = await useTestDatabase();
  const admin = await connectAs(db.adminUrl);
  const [user, project, run, other] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
  const word = `word${randomUUID()}`;
  const input = 'what an agent was given '.repeat(500);

  /** How many files of tables and indexes hold the word, and how many of the planner's samples. */
  const placesOfWord = async () => {
    await admin.query('checkpoint');
    const { rows } = await admin.query(
      `select (select count(*)::int from pg_class c where c.relkind in ('r', 'i', 't') and not c.relisshared
           and c.oid <> 'pg_statistic'::regclass
           and position($1 in pg_read_binary_file(pg_relation_filepath(c.oid))) > 0) as files,
         (select count(*)::int from pg_stats s where position(encode($1, 'hex') in s::text) > 0) as samples`,
      [Buffer.from(word)],
    );
    return rows[0];
  };

  before(async () => {
    await down(db.ownerUrl, 9);
    const unsealed = (text: string) => Buffer.concat([Buffer.from([0, 0]), Buffer.from(text)]);
    await admin.query(
      `insert into users (id, email, name, profile, caller, correlation_id)
       values ($1, 'old@example.org', 'Old', $2, 'test', gen_random_uuid())`,
      [user, unsealed(`{"theme":"${word}"}`)],
    );
    await admin.query(`insert into projects (id, name, language) values ($1, 'Old', 'en')`, [project]);
    await admin.query(
      `insert into agent_executions (project_id, id, agent_type, correlation_id, caller, project_revision)
       select $1, id, 'old', gen_random_uuid(), 'test', 0 from unnest($2::uuid[]) as id`,
      [project, [run, other]],
    );
    await admin.query(
      `insert into execution_payloads (project_id, execution_id, kind, content_type, data)
       values ($1, $2, 'input', 'text/plain', $3), ($1, $2, 'output', 'text/plain', $5), ($1, $4, 'output', 'text/plain', $5)`,
      [project, run, unsealed(input), other, unsealed(word)],
    );
    await admin.query('analyze');
    assert.deepEqual(await placesOfWord(), { files: 2, samples: 1 }, 'what comes more than once is sampled');
    await migrate(db.ownerUrl, { mode: 'auto' });
  });

  it('leave no samples to the planner', async () => {
    assert.equal((await placesOfWord()).samples, 0);
    await admin.query('analyze');
    assert.equal((await placesOfWord()).samples, 0);
  });

  it('keep a service from starting, with what to do', async () => {
    await assert.rejects(serve(db, OLD), /not sealed yet: run `jeex-persistence keys rotate`/);
  });

  it('are sealed by a rotation, and then read and compared like any', async () => {
    const { out, err } = await runCommand(['keys', 'rotate'], envOf(db, OLD));
    assert.match(out, /^4 rows \(/, err);
    assert.deepEqual(await rowsByKey(admin), { 1: 4 });
    const { users, executions } = await serve(db, OLD);
    const before = await users.getUser({ id: user });
    assert.deepEqual(before.user?.profile, { theme: word });
    const same = await users.updateUser({ user: { id: user, profile: { theme: word } } });
    assert.equal(same.user?.etag, before.user?.etag);
    const { execution } = await executions.getExecution({ projectId: project, id: run });
    assert.equal(Buffer.from(execution?.input?.data ?? []).toString(), input);

    const [, statement = ''] = /`(vacuum full .*?)`, as jeex_owner/.exec(err) ?? [];
    assert.equal((await placesOfWord()).files, 2, 'they are still there');
    // A statement that began before the rotation's end, of autovacuum for one, still sees what was there.
    await until(async () => {
      await asOwner(db, (client) => client.query(statement));
      return (await placesOfWord()).files === 0;
    }, 'they are gone');
  });

  it('may be gone back to and come again: a rotation adds what the way back removed', async () => {
    await down(db.ownerUrl, 10, { haveBackup: true });
    await migrate(db.ownerUrl, { mode: 'auto' });
    await assert.rejects(serve(db, OLD), /run `jeex-persistence keys rotate`/);
    assert.equal((await rotateKeys(db, OLD)).rows, 1);
    const { users } = await serve(db, OLD);
    const before = await users.getUser({ id: user });
    const same = await users.updateUser({ user: { id: user, profile: { theme: word } } });
    assert.deepEqual(same.user, before.user);
  });
});
