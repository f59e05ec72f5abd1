import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { toBinary } from '@bufbuild/protobuf';
import { verifyChain } from '../src/changes/verify.ts';
import { createDatabase } from '../src/db/pool.ts';
import { ChangeKind } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { parseRing } from '../src/sealing/ring.ts';
import { readFile } from '../src/transfer/file.ts';
import { importProject } from '../src/transfer/import.ts';
import { PROJECT_TABLES } from '../src/transfer/tables.ts';
import { allChanges } from './support/changes.ts';
import { runCommand } from './support/command.ts';
import { append, completedExport } from './support/exports.ts';
import { callOf, isRead, keyOf, METHODS, methodOf } from './support/methods.ts';
import { connectAs, useOwner } from './support/postgres.ts';
import { ENCRYPTION_KEY, newProject, newUser, useService } from './support/service.ts';

const service = await useService();
const { users, projects, documents, executions } = service;
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);

const ENV = {
  DATABASE_URL: service.db.appUrl,
  MIGRATION_DATABASE_URL: service.db.ownerUrl,
  ENCRYPTION_KEYS: ENCRYPTION_KEY,
};
const command = (args: readonly string[], input?: string, env: Readonly<Record<string, string>> = ENV) =>
  runCommand(['project', ...args], env, input);

const fileOf = async (projectId: string): Promise<string> => {
  const { code, out, err } = await command(['export', projectId]);
  assert.equal(code, 0, err);
  return out;
};

/** A project with something of everything, and a call that may be sent again. */
const makeProject = async () => {
  const { projectId, owner: actor } = await newProject(service);
  const editor = await newUser(service);
  await projects.setMember({ projectId, userId: editor, role: 2 }, { actor });
  const renamed = { project: { id: projectId, name: 'Renamed' }, requestId: randomUUID() };
  await projects.updateProject(renamed, { actor: editor });
  await append(service, projectId, 'idea', { actor });
  await append(service, projectId, 'idea', { actor: editor });
  await documents.restoreVersion({ projectId, documentType: 'idea', version: 1, reason: 'back' }, { actor });
  const content = `"quoted" \\ back\u2028line\u0001 ünïcödé 🙂 ${'long '.repeat(50_000)}`;
  const appended = {
    ...{ projectId, documentType: 'plan', content, requestId: randomUUID() },
    ...{ metadata: { n: 0.1, deep: { list: [1, null, 'x'] } }, readabilityScore: 71.2345678901 },
  };
  await documents.appendVersion(appended, { actor });
  const input = { contentType: 'application/octet-stream', data: Buffer.from([0, 1, 2, 255, 10, 13]) };
  const correlationId = randomUUID();
  const { execution, leaseToken } = await executions.createExecution(
    { projectId, agentType: 'writer', input, start: true },
    { actor, correlationId },
  );
  const executionId = execution?.id ?? '';
  const child = { projectId, agentType: 'reader', parentExecutionId: executionId };
  await executions.createExecution(child, { actor, correlationId });
  await executions.completeExecution(
    {
      ...{ projectId, id: executionId, leaseToken, output: { data: Buffer.from('{"a":1}') }, costMicros: 2n ** 60n },
      versions: [{ documentType: 'idea', content: 'by an agent' }],
    },
    { actor, correlationId },
  );
  const exported = await completedExport(service, projectId);
  return { projectId, actor, editor, executionId, exportId: exported.id, correlationId, appended };
};
type Made = Awaited<ReturnType<typeof makeProject>>;

/** What reads a project, each for what it holds. */
const readsOf = ({ projectId, executionId, exportId, correlationId, actor }: Made): Record<string, object> => ({
  'ProjectService/GetProject': { id: projectId },
  'ProjectService/ListProjects': {},
  'ProjectService/ListMembers': { projectId },
  'ProjectService/GetProjectUsage': { projectId },
  'DocumentService/GetVersion': { projectId, documentType: 'plan' },
  'DocumentService/BatchGetVersions': {
    projectId,
    names: [1, 2, 3].map((version) => ({ documentType: 'idea', version })),
  },
  'DocumentService/ListDocuments': { projectId },
  'DocumentService/ListVersions': { projectId, documentType: 'idea' },
  'DocumentService/DiffVersions': { projectId, documentType: 'idea', fromVersion: 1, toVersion: 2 },
  'DocumentService/SearchDocuments': { projectId, query: 'idea' },
  'AgentExecutionService/GetExecution': { projectId, id: executionId },
  'AgentExecutionService/ListExecutions': { projectId },
  'ExportService/GetExport': { projectId, id: exportId },
  'ExportService/ListExports': { projectId },
  'ExportService/StreamExportContent': { projectId, id: exportId },
  'ChangeService/WatchProject': { projectId, afterRevision: 0n },
  'ChangeService/WatchProjects': { cursors: [{ projectId, afterRevision: 0n }] },
  'ChangeService/ListChanges': { projectId },
  'ChangeService/GetTimeline': { projectId, correlationId },
  'UserService/GetUser': { id: actor },
});

/** Every answer about a project, byte for byte. */
const answersOf = async (made: Made): Promise<Record<string, string>> => {
  const answers: Record<string, string> = {};
  for (const [name, request] of Object.entries(readsOf(made))) {
    const method = methodOf(name);
    const answer = await callOf(service, method)(request, { actor: made.actor });
    answers[name] = Buffer.from(toBinary(method.output, answer)).toString('latin1');
  }
  return answers;
};

/** How many rows each table has of a project. */
const countsOf = async (projectId: string): Promise<Record<string, number>> => {
  const counts: Record<string, number> = {};
  for (const { name, project } of PROJECT_TABLES) {
    const { rows } = await admin.query(`select count(*)::int as n from ${name} where ${project} = $1`, [projectId]);
    counts[name] = rows[0].n;
  }
  return counts;
};

const assertNothingLeft = async (projectId: string): Promise<void> => {
  const counts = await countsOf(projectId);
  assert.deepEqual(new Set(Object.values(counts)), new Set([0]), JSON.stringify(counts));
};

/** How many stored replies are by or about a user. */
const repliesOf = async (id: string): Promise<number> =>
  (await admin.query('select from requests where $1 in (user_id, actor_id)', [id])).rowCount ?? 0;

/** All of it, since it is small. */
const purge = async (projectId: string): Promise<void> => {
  await projects.purgeProject({ id: projectId });
  await assertNothingLeft(projectId);
};

const isChainWhole = async (projectId: string): Promise<boolean> => {
  await using opened = new AsyncDisposableStack();
  const db = await createDatabase({ url: service.db.appUrl, size: 1 });
  opened.defer(() => db.end());
  return (await verifyChain(db, projectId, { kept: new Map() })).verdict.faultCount === 0;
};

describe('a project as a file', () => {
  it('holds every table that has a project', async () => {
    const { rows } = await admin.query(
      `select relname as name from pg_class join pg_attribute on attrelid = pg_class.oid
       where relnamespace = 'jeex'::regnamespace and relkind = 'r' and attname = 'project_id' and relname <> 'purges'`,
    );
    const names = ['projects', ...rows.map(({ name }) => name)];
    assert.deepEqual(names.toSorted(), PROJECT_TABLES.map(({ name }) => name).toSorted());
  });

  it('has each table behind those it refers to', async () => {
    const { rows } = await admin.query(
      `select conrelid::regclass::text as one, confrelid::regclass::text as other from pg_constraint
       where contype = 'f' and conrelid <> confrelid`,
    );
    const places = new Map(PROJECT_TABLES.map(({ name }, place) => [name, place]));
    const known = rows.filter(({ one, other }) => places.has(one) && places.has(other));
    assert.ok(known.length > 8);
    for (const { one, other } of known) {
      assert.ok(Number(places.get(other)) < Number(places.get(one)), `${one} refers to ${other}`);
    }
  });

  it('reads everything that an RPC can answer about a project', () => {
    const known = new Set(Object.keys(readsOf({} as Made)));
    const others = ['DatabaseService', 'UserService'];
    const missing = METHODS.filter((method) => isRead(method) && !others.includes(method.parent.name))
      .map(keyOf)
      .filter((name) => !known.has(name));
    assert.deepEqual(missing, []);
  });

  it('is exported, purged and imported, and every RPC answers as before', async () => {
    const made = await makeProject();
    const { projectId, actor, appended } = made;
    // The search follows the documents; what it finds is part of the answers.
    await admin.query('select index_heads(100)');
    const [before, counts] = [await answersOf(made), await countsOf(projectId)];
    const file = await fileOf(projectId);
    await purge(projectId);
    const { code, out, err } = await command(['import', '--json'], file);
    assert.equal(code, 0, err);
    const { revision } = JSON.parse(out);
    assert.deepEqual([await answersOf(made), await countsOf(projectId)], [before, counts]);
    assert.ok(await isChainWhole(projectId));
    assert.equal((await owner.query('select from purges where project_id = $1', [projectId])).rowCount, 0);
    // A call that was acknowledged before is not done twice.
    const { version } = await documents.appendVersion(appended, { actor });
    assert.equal(version?.version, 1);
    const { project } = await projects.getProject({ id: projectId }, { actor });
    assert.equal(String(project?.revision), revision);
    await append(service, projectId, 'idea', { actor });
    assert.ok(await isChainWhole(projectId));
  });

  it('comes under another id beside the first one, with a chain and seals of its own', async () => {
    const made = await makeProject();
    const file = await fileOf(made.projectId);
    const { code, out, err } = await command(['import', '--as', 'new', '--json'], file);
    assert.equal(code, 0, err);
    const projectId = JSON.parse(out).project as string;
    assert.notEqual(projectId, made.projectId);
    assert.ok(await isChainWhole(projectId));
    const [{ requests, ...there }, { requests: none, ...here }] = [
      await countsOf(made.projectId),
      await countsOf(projectId),
    ];
    assert.deepEqual([here, none, (requests ?? 0) > 0], [there, 0, true]);
    const [first, second] = await Promise.all(
      [made.projectId, projectId].map((id) => executions.getExecution({ projectId: id, id: made.executionId })),
    );
    assert.deepEqual({ ...first?.execution, projectId }, second?.execution);
    const [created] = await allChanges(service, projectId);
    assert.deepEqual([created?.kind, created?.resourceId], [ChangeKind.PROJECT_CREATED, projectId]);
    await append(service, projectId, 'idea', { actor: made.actor });
    assert.equal(
      (await documents.listVersions({ projectId: made.projectId, documentType: 'idea' })).versions.length,
      4,
    );
  });

  it('brings no erased user back', async () => {
    const { projectId, editor } = await makeProject();
    const membersOf = async () => (await projects.listMembers({ projectId })).members.map(({ userId }) => userId);
    const members = await membersOf();
    const file = await fileOf(projectId);
    await purge(projectId);
    await users.deleteUser({ id: editor });
    assert.equal(await repliesOf(editor), 0);
    const { code, out, err } = await command(['import'], file);
    assert.equal(code, 0, err);
    assert.match(out, /1 of its members were erased meanwhile/);
    assert.equal(await repliesOf(editor), 0);
    assert.deepEqual(
      await membersOf(),
      members.filter((id) => id !== editor),
    );
    const last = (await allChanges(service, projectId)).at(-1);
    assert.deepEqual(
      [last?.kind, last?.resourceId, last?.caller],
      [ChangeKind.MEMBER_REMOVED, editor, 'project import'],
    );
    assert.ok(await isChainWhole(projectId));
  });

  it('stays deleted, for a week at least', async () => {
    const { projectId, actor } = await makeProject();
    await projects.deleteProject({ id: projectId }, { actor });
    await owner.query(`update projects set purge_time = now() + interval '1 hour' where id = $1`, [projectId]);
    const file = await fileOf(projectId);
    await purge(projectId);
    const { code, out } = await command(['import'], file);
    assert.deepEqual([code, /it is deleted, as it was: UndeleteProject before /.test(out)], [0, true]);
    await projects.undeleteProject({ id: projectId }, { actor });
  });
});

describe('an import that fails', () => {
  const ring = parseRing(ENCRYPTION_KEY, 'test');

  const importText = async (text: string): Promise<void> => {
    const file = await readFile(Readable.from([Buffer.from(text)]));
    const { signal } = new AbortController();
    await importProject({ client: owner, ring, file, project: file.header.project, signal, onProgress: () => {} });
  };

  /** A line of a file in the place of another, with the hash that the whole then has. */
  const altered = (file: string, alter: (line: string) => string): string => {
    const lines = file.trimEnd().split('\n').slice(0, -1).map(alter);
    const { rows } = JSON.parse(file.trimEnd().split('\n').at(-1) ?? '');
    const body = `${lines.join('\n')}\n`;
    return `${body}${JSON.stringify({ end: true, rows, sha256: createHash('sha256').update(body).digest('hex') })}\n`;
  };
  const linesOf = (file: string): string[] => file.split(/(?<=\n)/);

  const FAILURES: readonly (readonly [name: string, damage: (file: string) => string, says: RegExp])[] = [
    ['an empty file', () => '', /the file is empty/],
    ['another file', () => 'PK\u0003\u0004', /no file that `project export` made/],
    ['a later format', (file) => file.replace('"version":1', '"version":2'), /format 2, and this release reads 1/],
    ['one without its last line', (file) => linesOf(file).slice(0, -1).join(''), /cut short/],
    ['one cut in the middle of a line', (file) => file.slice(0, file.length >> 1), /damaged/],
    ['one of which a row is missing', (file) => linesOf(file).toSpliced(-3, 1).join(''), /not all rows of/],
    ['one of which a word is altered', (file) => file.replace('long long', 'lone long'), /its hash is another/],
    ['two files in one', (file) => file + file, /goes on behind its end/],
    [
      'a table of another release',
      (file) => altered(file, (line) => line.replace('{"table":"exports"', '{"table":"secrets"')),
      /which this release does not know/,
    ],
    [
      'a column of another release',
      (file) => altered(file, (line) => line.replace('"file_path"', '"file_name"')),
      /exports.file_name is not known here; migrate up first/,
    ],
    [
      'a user who is not here',
      (file) => altered(file, (line) => line.replace(/"users":\["[^"]+"/, `"users":["${randomUUID()}"`)),
      /refers to 1 users who are not here/,
    ],
    [
      'an input that was sealed elsewhere',
      (file) => altered(file, (line) => line.replace(/("data":"\\\\x.{40})../, '$100')),
      /does not authenticate under key 1/,
    ],
    [
      'a row that breaks a rule',
      (file) => altered(file, (line) => line.replace('"kind":"EXPORT_COMPLETED"', '"kind":"SOMETHING"')),
      /changes_kind_known/,
    ],
  ];

  it('leaves nothing, and says why', async (t) => {
    const { projectId } = await makeProject();
    const file = await fileOf(projectId);
    const taken = await command(['import'], file);
    assert.deepEqual([taken.code, taken.out], [1, '']);
    assert.match(taken.err, new RegExp(`there is a project ${projectId} already: purge it first, or import --as`));
    await purge(projectId);
    for (const [name, damage, says] of FAILURES) {
      await t.test(name, async () => {
        await assert.rejects(importText(damage(file)), says);
        await assertNothingLeft(projectId);
      });
    }
    assert.equal((await command(['import'], file)).code, 0);
  });

  it('needs the keys that the database is sealed with, and makes no other key its services’', async () => {
    const other = `2:${'7a'.repeat(32)}`;
    for (const [keys, says] of [
      [other, /the key ring lacks key 1/],
      [`${other},${ENCRYPTION_KEY}`, /begins with key 2, which the services here do not have: put 1 first/],
    ] as const) {
      const { code, err } = await command(['import'], '', { ...ENV, ENCRYPTION_KEYS: keys });
      assert.equal(code, 1);
      assert.match(err, says);
    }
    assert.deepEqual((await admin.query('select key_id from sealing_keys')).rows, [{ key_id: 1 }]);
  });
});

it('a project that is being purged is not exported: it is not whole', async () => {
  const { projectId } = await newProject(service);
  await admin.query('update projects set delete_time = now(), purge_time = now() where id = $1', [projectId]);
  const { code, out, err } = await command(['export', projectId]);
  // The sweeper may have been faster.
  assert.match(err, /is being purged, and no longer whole|there is no project/);
  assert.deepEqual([code, out], [1, '']);
});

it('there is no project to export', async () => {
  const id = randomUUID();
  const { code, out, err } = await command(['export', id]);
  assert.deepEqual([code, out, err.includes(`there is no project ${id}`)], [1, '', true]);
});
