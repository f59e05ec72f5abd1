import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { follow } from '../src/changes/feed.ts';
import { createPoller } from '../src/changes/poller.ts';
import { createDatabase, type Database } from '../src/db/pool.ts';
import { ChangeKind } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { Visibility } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { allChanges, followed, type Watching, watch, watchMany } from './support/changes.ts';
import { append } from './support/exports.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { newProject, newUser, useService } from './support/service.ts';

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const service = await useService({ db, appUrl: () => proxy.url });
// Writes go through another replica, so that nothing rests on what the watching process knows.
const writer = await useService({ db });
const { projects } = service;
const admin = await connectAs(db.adminUrl);

const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const range = (first: number, last: number): bigint[] => times(last - first + 1, (i) => BigInt(first + i));

/** Reads past the first heartbeat, which says that the watch stands. */
const standing = async (watching: Watching): Promise<bigint> => {
  const event = await watching.next();
  assert.equal(event.case, 'heartbeat');
  return event.case === 'heartbeat' ? event.value.revision : 0n;
};

/** The error that ends a watch, and how long it took, in milliseconds. */
const endOf = async (watching: Watching): Promise<{ reason: string; metadata: Record<string, string>; ms: number }> => {
  const began = Date.now();
  try {
    for (;;) await watching.next();
  } catch (error) {
    const { reason, metadata } = error as { reason: string; metadata: Record<string, string> };
    return { reason, metadata, ms: Date.now() - began };
  }
};

describe('watching a project', { concurrency: true }, () => {
  it('tells every change once and in order while writers work, to every watcher, from wherever it starts', async () => {
    const { projectId, viewer, editor } = await newProject(service);
    const write = () => Promise.all(times(20, (i) => append(writer, projectId, `d${i % 3}`, { actor: editor })));
    await write();
    const watchers = [0n, 0n, 7n, 23n].map((after) => ({
      after,
      watching: watch(service, projectId, after, { actor: viewer }),
    }));
    const last = BigInt(3 + 20 * 8);
    const reads = watchers.map(({ watching }) => watching.until(last));
    for (let round = 1; round < 8; round++) await write();
    for (const [index, found] of (await Promise.all(reads)).entries()) {
      assert.deepEqual(
        found.map(({ revision }) => revision),
        range(Number(watchers[index]?.after) + 1, Number(last)),
      );
      assert.deepEqual(found, (await allChanges(service, projectId)).slice(-found.length));
    }
    for (const { watching } of watchers) watching.stop();
  });

  it('starts with now when no revision is given, and says so at once', async () => {
    const { projectId, viewer } = await newProject(service);
    const watching = watch(service, projectId, undefined, { actor: viewer });
    assert.equal(await standing(watching), 3n);
    await append(writer, projectId, 'idea');
    assert.deepEqual(
      (await watching.until(4n)).map(({ kind }) => kind),
      [ChangeKind.VERSION_APPENDED],
    );
    watching.stop();
  });

  it('goes on from the last revision that was seen', async () => {
    const { projectId } = await newProject(service);
    const first = watch(service, projectId, 0n);
    const seen = await first.until(2n);
    first.stop();
    await append(writer, projectId, 'idea');
    const second = watch(service, projectId, 2n);
    seen.push(...(await second.until(4n)));
    second.stop();
    assert.deepEqual(
      seen.map(({ revision }) => revision),
      range(1, 4),
    );
  });

  it('is refused a revision that the project has not reached, by its field', async () => {
    const [one, other] = [await newProject(service), await newProject(service)];
    const ahead = { reason: 'INVALID_FIELD' };
    await assert.rejects(watch(service, one.projectId, 4n).next(), { ...ahead, fields: ['after_revision'] });
    const cursors = [one, other].map(({ projectId }, i) => ({ projectId, afterRevision: BigInt(3 + i) }));
    const reading = watchMany(service, cursors);
    await assert.rejects(
      (async () => {
        for (;;) await reading.next();
      })(),
      { ...ahead, fields: ['cursors[1].after_revision'] },
    );
    const head = watch(service, one.projectId, 3n);
    assert.equal(await standing(head), 3n);
    head.stop();
  });

  it('brings a long history to a reader who takes breaks', async () => {
    const { projectId } = await newProject(service);
    for (let i = 0; i < 12; i++) {
      const entries = times(100, (n) => ({ documentType: `d${n}`, content: `${i}` }));
      await writer.documents.batchAppendVersions({ projectId, entries });
    }
    const watching = watch(service, projectId, 0n);
    const seen = await watching.until(250n);
    const write = append(writer, projectId, 'new');
    await sleep(700);
    await write;
    seen.push(...(await watching.until(1204n)));
    assert.deepEqual(
      seen.map(({ revision }) => revision),
      range(1, 1204),
    );
    watching.stop();
  });

  it('sends a heartbeat within 15 s when nothing happens', async () => {
    const { projectId } = await newProject(service);
    const watching = watch(service, projectId);
    assert.equal(await standing(watching), 3n);
    const began = Date.now();
    assert.equal(await standing(watching), 3n);
    assert.ok(Date.now() - began < 15_000);
    watching.stop();
  });

  it('ends when the actor loses access, in whatever way', async () => {
    const { projectId, viewer, editor, owner, stranger } = await newProject(service);
    const watchers = { viewer, editor, owner };
    const watching = Object.fromEntries(
      await Promise.all(
        Object.entries(watchers).map(async ([name, actor]) => {
          const each = watch(service, projectId, undefined, { actor });
          await standing(each);
          return [name, each] as const;
        }),
      ),
    ) as Record<keyof typeof watchers, Watching>;
    await writer.projects.removeMember({ projectId, userId: viewer });
    const left = await endOf(watching.viewer);
    assert.equal(left.reason, 'PROJECT_NOT_FOUND');
    assert.ok(left.ms < 15_000);
    await writer.users.deleteUser({ id: editor });
    assert.equal((await endOf(watching.editor)).reason, 'PROJECT_NOT_FOUND');
    await writer.projects.deleteProject({ id: projectId });
    assert.equal((await endOf(watching.owner)).reason, 'PROJECT_DELETED');
    for (const [actor, reason] of [
      [stranger, 'PROJECT_NOT_FOUND'],
      [randomUUID(), 'ACTOR_UNKNOWN'],
    ] as const) {
      assert.equal((await endOf(watch(service, projectId, 0n, { actor }))).reason, reason);
    }
  });

  it('ends when the actor loses its role in a project that everybody may read', async () => {
    const { projectId, viewer, stranger } = await newProject(service);
    await projects.updateProject({ project: { id: projectId, visibility: Visibility.PUBLIC_READ } });
    const watching = watch(service, projectId, undefined, { actor: viewer });
    await standing(watching);
    await writer.projects.removeMember({ projectId, userId: viewer });
    assert.equal((await endOf(watching)).reason, 'PROJECT_NOT_FOUND');
    assert.equal((await endOf(watch(service, projectId, 0n, { actor: stranger }))).reason, 'ROLE_REQUIRED');
  });

  it('ends where its cursor is older than what is kept', async () => {
    const { projectId } = await newProject(service);
    await admin.query('select compact_changes($1, 2, 10)', [projectId]);
    const { reason, metadata } = await endOf(watch(service, projectId, 1n));
    assert.equal(reason, 'REVISION_COMPACTED');
    assert.equal(metadata.earliest_revision, '2');
    const kept = watch(service, projectId, 2n);
    assert.equal((await kept.until(3n)).length, 1);
    kept.stop();
  });
});

describe('watching many projects on one stream', { concurrency: true }, () => {
  it('tells each project’s changes in order, none missed, none twice', async () => {
    const worlds = await Promise.all(times(5, () => newProject(service)));
    const ids = worlds.map(({ projectId }) => projectId);
    const watching = watchMany(
      service,
      ids.map((projectId, i) => ({ projectId, afterRevision: BigInt(i % 3) })),
    );
    const writes = Promise.all(times(60, (i) => append(writer, ids[i % 5] ?? '', 'idea')));
    const seen = new Map<string, bigint[]>(ids.map((id) => [id, []]));
    while ([...seen.values()].some((revisions) => revisions.at(-1) !== 15n)) {
      const event = await watching.next();
      if (event.case === 'change') seen.get(event.value.projectId)?.push(event.value.revision);
    }
    await writes;
    for (const [i, id] of ids.entries()) assert.deepEqual(seen.get(id), range((i % 3) + 1, 15));
    watching.stop();
  });

  it('takes 1000 cursors and refuses a project named twice', async () => {
    const actor = await newUser(service);
    const create = async () =>
      (await projects.createProject({ name: 'P', language: 'en' }, { actor })).project?.id ?? '';
    const ids: string[] = [];
    while (ids.length < 1000) ids.push(...(await Promise.all(times(20, create))));
    const watching = watchMany(
      service,
      ids.map((projectId) => ({ projectId })),
      { actor },
    );
    const known = new Set<string>();
    while (known.size < 1000) {
      const event = await watching.next();
      if (event.case === 'heartbeat') known.add(event.value.projectId);
    }
    await append(writer, ids[777] ?? '', 'idea', { actor });
    assert.equal((await watching.until(2n))[0]?.projectId, ids[777]);
    watching.stop();
    const twice = watchMany(
      service,
      [ids[0], ids[1], ids[0]].map((projectId = '') => ({ projectId })),
      { actor },
    );
    assert.equal((await endOf(twice)).reason, 'INVALID_FIELD');
  });

  it('ends with the project whose access was lost', async () => {
    const [one, other] = [await newProject(service), await newProject(service)];
    await projects.setMember({ projectId: other.projectId, userId: one.viewer, role: 1 });
    const cursors = [{ projectId: one.projectId }, { projectId: other.projectId }];
    const watching = watchMany(service, cursors, { actor: one.viewer });
    await standing(watching);
    await standing(watching);
    await projects.removeMember({ projectId: other.projectId, userId: one.viewer });
    const { reason, metadata } = await endOf(watching);
    assert.deepEqual([reason, metadata.project_id], ['PROJECT_NOT_FOUND', other.projectId]);
  });
});

describe('what watching costs', () => {
  it('is one statement for all watchers of the process, on no connection of their own', async () => {
    const { projectId } = await newProject(service);
    const watchers = times(200, () => watch(service, projectId));
    await Promise.all(watchers.map(standing));
    const { connections, roundTrips } = proxy;
    for (let revision = 4n; revision < 7n; revision++) {
      await append(writer, projectId, 'idea');
      await Promise.all(watchers.map((each) => each.until(revision)));
    }
    // Three changes came to 200 watchers each: had every watcher asked for itself, this were 600 and more.
    assert.ok(proxy.roundTrips - roundTrips < 60, `${proxy.roundTrips - roundTrips} round trips`);
    assert.equal(proxy.connections, connections);
    for (const each of watchers) each.stop();
  });

  it('is nothing for a reader who does not take what was sent, and when nobody watches', async (t) => {
    const pool = await createDatabase({ url: db.appUrl, size: 1 });
    t.after(() => pool.end());
    let polls = 0;
    const counting: Database = {
      ...pool,
      run: (statement, params, asker) => {
        polls += 1;
        return pool.run(statement, params, asker);
      },
    };
    const { projectId } = await newProject(service);
    const cursors = [{ projectId, afterRevision: 0n }];
    const events = follow(createPoller(counting), followed({ cursors, signal: t.signal }));
    const revisionOf = async () => (await events.next()).value?.change;
    assert.equal(await revisionOf(), 1n);
    await Promise.all(times(30, () => append(writer, projectId, 'idea')));
    // Two ticks and more, in which nothing must happen.
    await sleep(1200);
    assert.equal(polls, 1);
    for (const revision of range(2, 33)) assert.equal(await revisionOf(), revision);
    assert.ok(polls > 1);
    await events.return?.();
    const last = polls;
    await sleep(1200);
    assert.equal(polls, last);
  });

  it('survives a moment without the database, and misses nothing', async () => {
    const { projectId } = await newProject(service);
    const watching = watch(service, projectId, 0n);
    await watching.until(3n);
    proxy.down = true;
    await append(writer, projectId, 'idea');
    await sleep(1200);
    proxy.down = false;
    await append(writer, projectId, 'idea');
    assert.deepEqual(
      (await watching.until(5n)).map(({ revision }) => revision),
      [4n, 5n],
    );
    watching.stop();
  });
});
