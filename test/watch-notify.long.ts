import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { follow } from '../src/changes/feed.ts';
import { fromPayload, toPayloads } from '../src/changes/payload.ts';
import { createPoller } from '../src/changes/poller.ts';
import { type Signals, startSignals } from '../src/changes/signals.ts';
import { createDatabase, type Database } from '../src/db/pool.ts';
import { createLog } from '../src/log.ts';
import { followed, watch } from './support/changes.ts';
import { newAgent, startRun } from './support/executions.ts';
import { append } from './support/exports.ts';
import { connectAs, testCluster, useOwner, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { type Clients, newProject, newUser, useService } from './support/service.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();
const direct = db.urlAs('app');
const writer = await useService({ db });
/** A process that tells nobody. */
const mute = await useService({ db, env: { LISTEN_DATABASE_URL: '' } });
const admin = await connectAs(db.adminUrl);
const pool = await createDatabase({ url: db.appUrl, size: 2 });
after(() => pool.end());

const silent = createLog('silent');
const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
/** So rarely that nothing in a test comes of it. */
const NEVER = { liveMs: 3_600_000, pollMs: 3_600_000 };

/** Signals of a process of its own, stopped after the test. */
const useSignals = (t: { after(done: () => Promise<void>): void }, url: string | null, log = silent): Signals => {
  const signals = startSignals({ url, log });
  t.after(() => signals.stop());
  return signals;
};

/** What a process hears: whether it is live, and the projects that it is told of. */
const hearing = (signals: Signals) => {
  const heard = { live: false, lives: 0, projects: new Set<string>() };
  signals.follow({
    wake: (project) => heard.projects.add(project),
    setLive: (live) => {
      heard.live = live;
      if (live) heard.lives += 1;
    },
  });
  return heard;
};

/** A project watched from now on in a process of its own, and the number of times that it asked the database. */
const watching = async (
  t: { readonly signal: AbortSignal; after(done: () => Promise<void>): void },
  { url = direct, projectId, intervals = NEVER, actor = null as string | null }: WatchOptions,
) => {
  const signals = useSignals(t, url);
  const heard = hearing(signals);
  await until(() => heard.live, 'the listener is live');
  const counts = { polls: 0 };
  const counting: Database = {
    ...pool,
    run: (statement, params, asker) => {
      counts.polls += 1;
      return pool.run(statement, params, asker);
    },
  };
  const poller = createPoller(counting, intervals);
  signals.follow(poller);
  const events = follow(poller, followed({ actor, cursors: [{ projectId }], signal: t.signal }));
  const next = async () => (await events.next()).value;
  assert.deepEqual(await next(), { heartbeat: 3n });
  t.after(async () => void (await events.return?.()));
  return { next, heard, counts };
};
interface WatchOptions {
  readonly url?: string;
  readonly projectId: string;
  readonly intervals?: { readonly liveMs: number; readonly pollMs: number };
  readonly actor?: string | null;
}

/** A project that is told of once: whoever hears of it has heard of all that its process wrote before. */
const newMark = async (clients: Clients): Promise<string> => {
  const actor = await newUser(clients);
  const { project } = await clients.projects.createProject({ name: 'A mark', language: 'en' }, { actor });
  // Nobody can watch a new project, so its making is told to nobody.
  await append(clients, project?.id ?? '', 'idea');
  return project?.id ?? '';
};

/** Ends the connections of all listeners on this database. */
const endListeners = async (): Promise<number> => {
  const { rowCount } = await admin.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and application_name = 'jeex-persistence listener'`,
  );
  return rowCount ?? 0;
};

describe('a change of another process', { concurrency: true }, () => {
  it('arrives by a notification, and costs one question', async (t) => {
    const { projectId } = await newProject(writer);
    const { next, counts } = await watching(t, { projectId });
    assert.equal(counts.polls, 1);
    await append(writer, projectId, 'idea');
    assert.deepEqual(await next(), { change: 4n });
    assert.equal(counts.polls, 2);
  });

  it('ends the watch of who has lost access by it', async (t) => {
    const { projectId, viewer } = await newProject(writer);
    const { next } = await watching(t, { projectId, actor: viewer });
    await writer.projects.removeMember({ projectId, userId: viewer });
    await assert.rejects(next(), { reason: 'PROJECT_NOT_FOUND' });
  });

  it('that nobody told of arrives when the watch has its turn', async (t) => {
    const { projectId } = await newProject(mute);
    const { next } = await watching(t, { projectId, intervals: { ...NEVER, liveMs: 50 } });
    await append(mute, projectId, 'idea');
    assert.deepEqual(await next(), { change: 4n });
  });
});

describe('what a process tells the others', () => {
  it('is each project that a write has changed, also where only its answer names it, and none that was refused', async () => {
    // Nobody else sweeps its database.
    const only = await useService();
    const sweeper = await useOwner(only.db);
    const listener = await connectAs(only.db.urlAs('app'));
    const heard = new Set<string>();
    listener.on('notification', ({ payload = '' }) => {
      for (const id of fromPayload(payload)) heard.add(id);
    });
    await listener.query('listen jeex_changes');
    const ids = await Promise.all(times(5, async () => (await newProject(only)).projectId));
    const [appended, claimed, swept, refused, lastly] = ids as [string, string, string, string, string];
    const agentType = newAgent();
    await only.executions.createExecution({ projectId: claimed, agentType });
    const { id } = await startRun(only, swept);
    const mark = await newMark(only);
    await until(() => heard.has(mark), 'what comes before is told of');
    heard.clear();

    await append(only, appended, 'idea');
    await only.executions.claimExecution({ agentTypes: [agentType] });
    await sweeper.query('update agent_executions set lease_expire_time = now() where id = $1', [id]);
    await assert.rejects(append(only, refused, 'idea', { actor: randomUUID() }), { reason: 'ACTOR_UNKNOWN' });
    await until(() => [appended, claimed, swept].every((project) => heard.has(project)), 'all three are told of');
    await append(only, lastly, 'idea');
    await until(() => heard.has(lastly), 'the last one is told of');
    assert.ok(!heard.has(refused));
  });

  it('is split where it is too much for one notification', async (t) => {
    const ids = times(1000, () => randomUUID());
    const payloads = toPayloads(ids);
    assert.equal(payloads.length, 3);
    for (const payload of payloads) assert.ok(payload.length < 8000);
    assert.deepEqual(payloads.flatMap(fromPayload), ids);
    assert.deepEqual(toPayloads([]), []);

    const here = useSignals(t, direct);
    const there = hearing(useSignals(t, direct));
    const alsoHere = hearing(here);
    await until(() => there.live && alsoHere.live, 'both listen');
    ids.forEach(here.changed);
    await until(() => ids.every((id) => there.projects.has(id)), 'all of them are heard');
  });

  it('is nothing that others make up', () => {
    for (const payload of ['', 'A', 'nonsense', '{"project":1}', 'é'.repeat(40)]) {
      for (const id of fromPayload(payload)) assert.match(id, /^[0-9a-f-]{36}$/);
    }
    assert.deepEqual(fromPayload('AAAA'), []);
  });

  it('is told before it ends', async (t) => {
    const there = hearing(useSignals(t, direct));
    const ending = startSignals({ url: direct, log: silent });
    const here = hearing(ending);
    await until(() => there.live && here.live, 'both listen');
    const id = randomUUID();
    ending.changed(id);
    await ending.stop();
    await until(() => there.projects.has(id), 'the last change is heard');
  });
});

describe('a listener that was lost', () => {
  it('comes back, and what was changed meanwhile is found then', async (t) => {
    const { projectId } = await newProject(writer);
    const proxy = await useProxy(direct);
    const { next, heard } = await watching(t, { url: proxy.url, projectId });
    proxy.down = true;
    await until(() => !heard.live, 'the loss is noticed');
    await append(writer, projectId, 'idea');
    proxy.down = false;
    assert.deepEqual(await next(), { change: 4n });
    await append(writer, projectId, 'idea');
    assert.deepEqual(await next(), { change: 5n });
  });

  it('comes back when PostgreSQL ended it, and says so once', async (t) => {
    const lines: string[] = [];
    const log = createLog('info', { write: (line: string) => void lines.push(line) });
    const { projectId } = await newProject(writer);
    const signals = useSignals(t, direct, log);
    const heard = hearing(signals);
    await until(() => heard.live, 'the listener is live');
    assert.ok((await endListeners()) > 0);
    await until(() => heard.lives === 2, 'it is live again');
    assert.equal(lines.length, 2);
    assert.match(lines[0] ?? '', /found by polling/);
    assert.match(lines[1] ?? '', /heard of again/);
    // The writer's own listener was ended too: what it has to tell waits for the next one.
    await append(writer, projectId, 'idea');
    await until(() => heard.projects.has(projectId), 'the change is heard');
  });

  it('never fails a write, and tells of it later', async (t) => {
    const proxy = await useProxy(direct);
    const cutOff = await useService({ db, env: { LISTEN_DATABASE_URL: proxy.url } });
    const heard = hearing(useSignals(t, direct));
    await until(() => heard.live && proxy.connections > 0, 'both listen');
    const worlds = await Promise.all(times(3, () => newProject(cutOff)));
    const [silenced, down, back] = worlds.map(({ projectId }) => projectId) as [string, string, string];
    const mark = await newMark(cutOff);
    await until(() => heard.projects.has(mark), 'what comes before is told of');
    heard.projects.clear();
    proxy.silent = true;
    const { roundTrips } = proxy;
    await append(cutOff, silenced, 'idea');
    await until(() => proxy.roundTrips > roundTrips, 'it tries to tell');
    proxy.down = true;
    await append(cutOff, down, 'idea');
    proxy.silent = false;
    proxy.down = false;
    await append(cutOff, back, 'idea');
    await until(() => worlds.every(({ projectId }) => heard.projects.has(projectId)), 'all three are told of');
  });

  it('polls where a pooler stands between, and says why', async (t) => {
    if (testCluster().pooler === null) return t.skip('this run has no PgBouncer');
    const lines: string[] = [];
    const heard = hearing(
      useSignals(t, db.appUrl, createLog('warn', { write: (line: string) => void lines.push(line) })),
    );
    await until(() => lines.length > 0, 'the reason is logged');
    assert.match(lines[0] ?? '', /a pooler stands between/);
    assert.equal(heard.live, false);
  });

  it('is told of at the start where none is configured', () => {
    const lines: string[] = [];
    startSignals({ url: null, log: createLog('info', { write: (line: string) => void lines.push(line) }) });
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? '', /LISTEN_DATABASE_URL is unset/);
  });
});

describe('a watcher that is killed and resumed', () => {
  it('misses nothing and is told nothing twice, while eight writers work and listeners end', async () => {
    const { projectId } = await newProject(writer);
    const last = BigInt(3 + 8 * 30);
    const writes = times(8, async (n) => {
      for (let i = 0; i < 30; i++) await append(n % 2 ? writer : mute, projectId, `d${n}`);
    });
    const seen: bigint[] = [];
    for (let kills = 0; (seen.at(-1) ?? 0n) < last; kills++) {
      if (kills % 10 === 5) await endListeners();
      const each = watch(writer, projectId, seen.at(-1) ?? 0n);
      for (let read = 0; read <= kills % 10 && (seen.at(-1) ?? 0n) < last; ) {
        const event = await each.next();
        if (event.case !== 'change') continue;
        seen.push(event.value.revision);
        read += 1;
      }
      each.stop();
    }
    await Promise.all(writes);
    assert.deepEqual(
      seen,
      times(Number(last), (i) => BigInt(i + 1)),
    );
  });
});
