import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { createDatabase } from '../src/db/pool.ts';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { createLog } from '../src/log.ts';
import { canonicalBytes, requestIdentifier } from '../src/rpc/identity.ts';
import { parseRing } from '../src/sealing/ring.ts';
import { openSealing } from '../src/sealing/sealing.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';
import { type Clients, ENCRYPTION_KEY, newProject, newUser, useService } from './support/service.ts';

const lines: string[] = [];
const service = await useService({ log: createLog('error', { write: (line: string) => void lines.push(line) }) });
const { users, executions, db } = service;
const admin = await connectAs(db.adminUrl);

const OTHER = `2:${'b7'.repeat(32)}`;
const withKeys = (keys: string, on = db) => useService({ db: on, env: { ENCRYPTION_KEYS: keys } });

/** Words that stand nowhere else, short and too long for a row. */
const words = () => {
  const word = `WORD${randomBytes(12).toString('hex')}`;
  return { word, short: word, long: `${word} `.repeat(400) };
};

const newRun = async (
  { executions: runs }: Clients,
  request: { projectId: string; input?: string; output?: string },
): Promise<string> => {
  const { execution } = await runs.createExecution({
    projectId: request.projectId,
    agentType: 'sealed',
    input: { data: Buffer.from(request.input ?? 'an input') },
    start: true,
  });
  return execution?.id ?? '';
};

describe('what is sealed', () => {
  const profile = words();
  const input = words();
  const output = words();
  const email = `sealed-${randomBytes(6).toString('hex')}@example.org`;
  const requestId = randomUUID();
  const request = { email, name: 'Ann', profile: { short: profile.short, long: profile.long }, requestId };
  let projectId = '';
  let userId = '';
  let runId = '';

  before(async () => {
    userId = (await users.createUser(request)).user?.id ?? '';
    await users.updateUser({ user: { id: userId, profile: { [profile.word]: 1 } } });
    projectId = (await newProject(service)).projectId;
    const created = await executions.createExecution({
      projectId,
      agentType: email,
      input: { data: Buffer.from(input.long) },
      start: true,
      requestId: randomUUID(),
    });
    runId = created.execution?.id ?? '';
    await executions.completeExecution({
      projectId,
      id: runId,
      leaseToken: created.leaseToken,
      output: { data: Buffer.from(output.short) },
      requestId: randomUUID(),
    });
  });

  it('comes back as it was given', async () => {
    const { execution } = await executions.getExecution({ projectId, id: runId });
    assert.equal(Buffer.from(execution?.input?.data ?? []).toString(), input.long);
    assert.equal(Buffer.from(execution?.output?.data ?? []).toString(), output.short);
    assert.deepEqual((await users.getUser({ id: userId })).user?.profile, { [profile.word]: 1 });
    assert.deepEqual((await users.createUser(request)).user?.profile, request.profile, 'the first answer again');
  });

  const found = async (word: string, sql: string): Promise<number> =>
    Number((await admin.query(sql, [Buffer.from(word)])).rows[0].found);

  it('stands nowhere in the files of the database, where the address, which is not sealed, does', async () => {
    await admin.query('analyze');
    await admin.query('checkpoint');
    // Tables, indexes and their overflow, catalogs with their statistics included.
    const inFiles = `select count(*) as found from pg_class c
      where c.relkind in ('r', 'i', 't', 'm') and not c.relisshared
        and position($1::bytea in pg_read_binary_file(pg_relation_filepath(c.oid))) > 0`;
    assert.ok((await found(email, inFiles)) > 0);
    for (const { word } of [profile, input, output]) assert.equal(await found(word, inFiles), 0);
  });

  it('stands nowhere in its write-ahead log, where a name, which is not sealed, does', async () => {
    const { rows } = await admin.query('select pg_walfile_name(pg_current_wal_lsn()) as first');
    const [name, kept, sent] = [words().word, words().word, words().word];
    await users.updateUser({ user: { id: userId, name, profile: { kept } } });
    await executions.createExecution({ projectId, agentType: 'sealed', input: { data: Buffer.from(sent) } });
    // Commits of the tests' servers are written out by and by; this takes what came before along.
    await admin.query(`select pg_logical_emit_message(false, 'test', 'flush', true)`);
    const inLog = `select count(*) as found from pg_ls_waldir() w
      where w.name between '${rows[0].first}' and pg_walfile_name(pg_current_wal_lsn())
        and position($1::bytea in pg_read_binary_file('pg_wal/' || w.name)) > 0`;
    assert.ok((await found(name, inLog)) > 0);
    for (const word of [kept, sent]) assert.equal(await found(word, inLog), 0);
    await users.updateUser({ user: { id: userId, profile: { [profile.word]: 1 } } });
  });

  it('stands nowhere in a dump of every table', async () => {
    const { rows: tables } = await admin.query(`select relname from pg_class c
      where relnamespace = 'jeex'::regnamespace and relkind = 'r'`);
    let dump = '';
    for (const { relname } of tables) {
      dump += (await admin.query(`select string_agg(t::text, e'\\n') as rows from ${relname} t`)).rows[0].rows ?? '';
    }
    assert.ok(dump.includes(email));
    for (const { word } of [profile, input, output]) {
      assert.ok(!dump.includes(word));
      assert.ok(!dump.includes(Buffer.from(word).toString('hex')));
    }
  });

  it('stands in no reply that the request alone would open, as it did in release 0.1.0', async () => {
    const canonical = canonicalBytes(
      UserService.method.createUser.input,
      create(UserService.method.createUser.input, request),
      ['request_id'],
    );
    const digest = createHash('sha256').update(canonical).digest();
    const bareKey = createHash('sha256').update('reply\0').update(digest).digest();
    const decrypt = (key: Buffer) =>
      admin.query(
        `select convert_from(crypto.decrypt(reply, $2, 'aes-cbc/pad:pkcs'), 'UTF8') as reply, request_hash as hash
         from requests where request_id = $1`,
        [requestId, key],
      );
    await assert.rejects(decrypt(bareKey));
    const pool = await createDatabase({ url: db.appUrl, size: 1 });
    const { requestKey } = await openSealing(pool, parseRing(ENCRYPTION_KEY, 'TEST'));
    await pool.end();
    const name = 'jeex.persistence.v1.UserService/CreateUser';
    const identity = requestIdentifier(requestKey)(
      name,
      UserService.method.createUser.input,
      create(UserService.method.createUser.input, request),
    );
    assert.ok(identity);
    const { rows } = await decrypt(identity.key);
    assert.ok(rows[0].reply.includes(email), 'with the key it opens: the check above can fail');
    assert.ok(!rows[0].reply.includes(profile.word));
    assert.deepEqual(rows[0].hash, identity.hash);
  });

  it('is in no reply about a time before there was a profile', async () => {
    const request = { email: `${randomUUID()}@example.org`, name: 'N', requestId: randomUUID() };
    const first = await users.createUser(request);
    const id = first.user?.id ?? '';
    await users.updateUser({ user: { id, profile: { later: 'words' } } });
    assert.deepEqual(await users.createUser(request), first);
  });

  it('takes no change for one when the profile is the same', async () => {
    const { user } = await users.getUser({ id: userId });
    const same = await users.updateUser({ user: { id: userId, profile: { [profile.word]: 1 } } });
    assert.equal(same.user?.etag, user?.etag);
    const changed = await users.updateUser({ user: { id: userId, profile: { [profile.word]: 2 } } });
    assert.notEqual(changed.user?.etag, user?.etag);
  });
});

describe('an envelope in another place', () => {
  /** Swaps two envelopes, looks, and swaps them back. */
  const swapped = async (swap: string, look: () => Promise<void>) => {
    await admin.query(swap);
    try {
      await look();
    } finally {
      await admin.query(swap);
    }
  };
  const internal = async (call: Promise<unknown>, place: RegExp) => {
    lines.length = 0;
    await assert.rejects(call, { reason: 'INTERNAL' });
    assert.match(lines.join('\n'), place);
    assert.match(lines.join('\n'), /does not authenticate under key 1/);
  };

  it('fails the user whose profile it was put into, and no other', async () => {
    const [one, other, third] = [await newUser(service), await newUser(service), await newUser(service)];
    for (const id of [one, other, third]) await users.updateUser({ user: { id, profile: { mine: id } } });
    const swap = `update users u set profile = o.profile from users o
      where (u.id, o.id) in (('${one}', '${other}'), ('${other}', '${one}'))`;
    await swapped(swap, async () => {
      await internal(users.getUser({ id: one }), new RegExp(`users\\.profile of ${one}`));
      await internal(users.batchGetUsers({ ids: [third, other] }), new RegExp(`users\\.profile of ${other}`));
      assert.deepEqual((await users.getUser({ id: third })).user?.profile, { mine: third });
    });
    assert.deepEqual((await users.getUser({ id: one })).user?.profile, { mine: one });
  });

  it('fails the run whose input it was put into: of another run, of another project, or its output', async () => {
    const { projectId } = await newProject(service);
    const elsewhere = await newProject(service);
    const mine = await newRun(service, { projectId });
    const sibling = await newRun(service, { projectId });
    const foreign = await newRun(service, { projectId: elsewhere.projectId });
    const recorded = await executions.batchCreateExecutions({
      projectId,
      executions: [
        {
          agentType: 'sealed',
          status: 3,
          startTime: { seconds: 1n },
          completeTime: { seconds: 2n },
          input: { data: Buffer.from('in') },
          output: { data: Buffer.from('out') },
        },
      ],
    });
    const whole = recorded.executions[0]?.id ?? '';
    const inputs = (one: string, other: string) => `update execution_payloads p set data = o.data
      from execution_payloads o where p.kind = 'input' and o.kind = 'input'
        and (p.execution_id, o.execution_id) in (('${one}', '${other}'), ('${other}', '${one}'))`;
    const kinds = `update execution_payloads p set data = o.data from execution_payloads o
      where p.execution_id = '${whole}' and o.execution_id = p.execution_id and p.kind <> o.kind`;
    const get = (id: string) => executions.getExecution({ projectId, id });
    const place = (id: string) => new RegExp(`execution_payloads\\.input of ${id} in project ${projectId}`);

    await swapped(inputs(mine, sibling), async () => {
      await internal(get(mine), place(mine));
      await internal(get(sibling), place(sibling));
      assert.equal((await get(whole)).execution?.id, whole);
    });
    await swapped(inputs(mine, foreign), async () => internal(get(mine), place(mine)));
    await swapped(kinds, async () => internal(get(whole), place(whole)));
    for (const id of [mine, sibling, whole]) assert.equal((await get(id)).execution?.id, id);
  });

  it('fails the start of a run, and its repetition, until it is put right', async () => {
    const { projectId } = await newProject(service);
    const agentType = `agent-${randomUUID()}`;
    const input = { data: Buffer.from('to do') };
    const { execution } = await executions.createExecution({ projectId, agentType, input });
    const flip = `update execution_payloads set data = set_byte(data, 20, get_byte(data, 20) # 1)
      where execution_id = '${execution?.id}'`;
    const claim = { agentTypes: [agentType], requestId: randomUUID() };
    await swapped(flip, async () => {
      await internal(executions.claimExecution(claim), /execution_payloads\.input/);
      await internal(executions.claimExecution(claim), /execution_payloads\.input/);
    });
    const claimed = await executions.claimExecution(claim);
    assert.deepEqual(Buffer.from(claimed.execution?.input?.data ?? []).toString(), 'to do');
  });
});

describe('what the database takes', () => {
  const insert = (profile: Buffer, mac: Buffer | null) =>
    admin.query(
      `insert into users (email, name, profile, profile_mac, caller, correlation_id)
       values ($1, 'N', $2, $3, 'test', gen_random_uuid())`,
      [`${randomUUID()}@example.org`, profile, mac],
    );
  const envelope = (keyId: number, length = 30) => Buffer.concat([Buffer.from([0, keyId]), randomBytes(length - 2)]);

  it('is no envelope under a key that is not in use, none that is not sealed, none that is too short', async () => {
    await insert(envelope(1), randomBytes(32));
    await assert.rejects(insert(envelope(9), randomBytes(32)), /key 9 is not in use/);
    await assert.rejects(insert(envelope(0), randomBytes(32)), /key 0 is not in use/);
    await assert.rejects(insert(envelope(1, 29), randomBytes(32)), { constraint: 'users_profile_sealed' });
    await assert.rejects(insert(envelope(1), null), { constraint: 'users_profile_sealed' });
    await assert.rejects(insert(envelope(1), randomBytes(31)), { constraint: 'users_profile_mac_length' });
  });

  it('is a name, where the profile beside it is under a key that is being taken out; a profile is not', async () => {
    const id = await newUser(service);
    await users.updateUser({ user: { id, profile: { kept: true } } });
    await admin.query('update sealing_keys set retired = true');
    try {
      const { user } = await users.updateUser({ user: { id, name: 'New' } });
      assert.deepEqual([user?.name, user?.profile], ['New', { kept: true }]);
      await assert.rejects(users.updateUser({ user: { id, profile: {} } }), { reason: 'INTERNAL' });
      await assert.rejects(insert(envelope(1), randomBytes(32)), /key 1 is not in use/);
    } finally {
      await admin.query('update sealing_keys set retired = false');
    }
  });

  it('is no id that the bytes it ends as would make no UUID', async () => {
    const tail = randomUUID();
    const { rows } = await admin.query('select id_ending($1)::text as id, uuidv7()::text as next', [tail]);
    assert.equal(rows[0].id.slice(19), tail.slice(19));
    assert.match(rows[0].id, /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
    assert.ok(rows[0].next > rows[0].id, 'in the order of time');
    await assert.rejects(admin.query('select id_ending($1)', ['00000000-0000-7000-c000-000000000000']), /variant/);
  });
});

describe('the start of a service', () => {
  it('is refused without the key the database is sealed with, and with another key of its id', async () => {
    await assert.rejects(withKeys(OTHER), /the key ring lacks key 1, which this database is sealed with: add/);
    await assert.rejects(
      withKeys(`1:${'00'.repeat(32)}`),
      /key 1 of the key ring is not the key 1 this database was sealed with/,
    );
  });

  it('makes one secret, however many start at once, and with it one sign for their page tokens', async () => {
    const fresh = await useTestDatabase();
    const rings = [`${ENCRYPTION_KEY},${OTHER}`, `${OTHER},${ENCRYPTION_KEY}`, `${ENCRYPTION_KEY},${OTHER}`];
    const [first, last] = await Promise.all(rings.map((keys) => withKeys(keys, fresh)));
    assert.ok(first && last);
    for (const _ of [1, 2]) await newUser(first);
    const { nextPageToken: pageToken } = await first.users.listUsers({ pageSize: 1 });
    assert.equal((await last.users.listUsers({ pageSize: 1, pageToken })).users.length, 1);
  });

  it('is refused with a row of another secret', async () => {
    const fresh = await useTestDatabase();
    await (await withKeys(ENCRYPTION_KEY, fresh)).stop();
    const elsewhere = await useTestDatabase();
    await (await withKeys(OTHER, elsewhere)).stop();
    const { rows } = await (await connectAs(elsewhere.adminUrl)).query('select secret from sealing_keys');
    await (await connectAs(fresh.adminUrl)).query('insert into sealing_keys (key_id, secret) values (2, $1)', [
      rows[0].secret,
    ]);
    await assert.rejects(withKeys(`${ENCRYPTION_KEY},${OTHER}`, fresh), /hold different secrets/);
  });
});
