import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { toBinary } from '@bufbuild/protobuf';
import { ExecutionStatus } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { type DocumentVersion, View } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { newWorld } from './support/examples.ts';
import { callOf, type Fields, methodOf } from './support/methods.ts';
import { connectAs } from './support/postgres.ts';
import { newUser, useService } from './support/service.ts';

// The sweeper would make vectors of all this meanwhile; nothing here is about searching fast.
const service = await useService();
const { documents, executions, exports, projects, changes } = service;
const admin = await connectAs(service.db.adminUrl);

const MIB = 1024 * 1024;
const MESSAGE_BYTES = 4 * MIB;
const MANY = 1000;
/** The most a Struct takes on the wire: 16 KiB of JSON are some 90 KB there. */
const STRUCT = { a: Array.from({ length: (16 * 1024 - 8) / 2 }, () => 0) };
/** The same size as JSON, and little work to decode: for most of many rows. */
const LIGHT = { a: 'x'.repeat(16 * 1024 - 8) };
const TEXT = '😀'.repeat(4000);
const NAME = '😀'.repeat(255);
const LONG = '😀'.repeat(100);
const CORRELATION = randomUUID();

/** The longest names there are, in order. */
const typeOf = (index: number): string => `t${String(index).padStart(49, '0')}`;

/** Any read, with stock settings of the client: an answer over 4 MiB would be RESOURCE_EXHAUSTED. */
const read = async (key: string, request: Fields): Promise<Readonly<Record<string, Fields>>> => {
  const method = methodOf(key);
  const answer = await callOf(service, method)(request);
  const bytes = toBinary(method.output, answer).byteLength;
  assert.ok(bytes <= MESSAGE_BYTES, `${key} answers ${bytes} bytes`);
  return answer as unknown as Readonly<Record<string, Fields>>;
};

/** Reads a list to its end, or as many pages as are asked for; answers what they held. */
const pages = async (key: string, request: Fields, items: string, most = Number.POSITIVE_INFINITY) => {
  const found: Fields[] = [];
  let pageToken = '';
  let page = 0;
  do {
    const answer = (await read(key, { ...request, pageSize: MANY, pageToken })) as unknown as Record<string, unknown>;
    const held = answer[items] as Fields[];
    assert.ok(held.length > 0 || answer.nextPageToken === '', 'a page that is not the last holds something');
    found.push(...held);
    pageToken = answer.nextPageToken as string;
    page += 1;
  } while (pageToken !== '' && page < most);
  return { found, pages: page };
};

let projectId: string;
let owner: string;

/** A body of the most bytes there are, of characters that differ from one version to the next. */
const largest = (seed: string): string => {
  const line = `${createHash('sha256').update(seed).digest('hex')} `;
  return line.repeat(Math.ceil((3 * MIB) / line.length)).slice(0, 3 * MIB);
};
const lines = (seed: number): string => {
  let text = '';
  for (let i = 0; text.length < 3 * MIB; i++) text += `${(i * 2654435761 + seed) % 4294967296}\n`;
  return text.slice(0, 3 * MIB);
};

before(async () => {
  const world = await newWorld(service);
  ({ projectId, owner } = world);
  await projects.updateProject({ project: { id: projectId, name: NAME, metadata: STRUCT } });
  const bare = { metadata: STRUCT, reason: TEXT, readabilityScore: 1.5, grammarScore: 2.5 };
  for (const content of [largest('one'), largest('two'), lines(1), lines(7)]) {
    await documents.appendVersion(
      { projectId, documentType: 'large', content, ...bare },
      { correlationId: CORRELATION },
    );
  }
  // Far from the project's own revisions, so that each row has its place in a timeline; one in twenty with the metadata
  // that takes most on the wire.
  await admin.query(
    `with body as (insert into document_bodies select $1, sha256('x'), 'x', 1 returning sha256),
       docs as (insert into documents (project_id, document_type, head_version)
                select $1, 't' || lpad(i::text, 49, '0'), 1 from generate_series(1, ${MANY - 1}) i returning document_type)
     insert into document_versions (id, project_id, document_type, version, content_sha256, size_bytes, metadata, reason,
         created_by, caller, correlation_id, create_time, project_revision)
       select uuidv7(), $1, d.document_type, 1, body.sha256, 1,
         case when substr(d.document_type, 2)::int % 20 = 1 then v.metadata else $3 end,
         v.reason, $2, 'c', gen_random_uuid(), now(), 1000000 + substr(d.document_type, 2)::int
       from docs d, body, document_versions v where v.project_id = $1 and v.document_type = 'large' and v.version = 1`,
    [projectId, owner, LIGHT],
  );
  await admin.query(
    `insert into document_versions (id, project_id, document_type, version, content_sha256, size_bytes, metadata, reason,
       created_by, caller, correlation_id, create_time, project_revision)
     select uuidv7(), $1, v.document_type, 4 + i, v.content_sha256, v.size_bytes,
       case when i % 20 = 0 then v.metadata else $3 end, v.reason, $2, 'c', v.correlation_id, now(), 2000000 + i
     from document_versions v, generate_series(1, ${MANY}) i
     where v.project_id = $1 and v.document_type = 'large' and v.version = 1`,
    [projectId, owner, LIGHT],
  );
  await admin.query(
    `update documents set head_version = ${MANY} + 4 where project_id = $1 and document_type = 'large'`,
    [projectId],
  );
});

describe('at the default message size, with the largest data that can be written', () => {
  it('GetProject and ListProjects answer', async () => {
    await read('ProjectService/GetProject', { id: projectId });
    await admin.query(
      `insert into projects (name, language, metadata)
       select name, language, case when i % 20 = 0 then metadata else $2 end from projects, generate_series(1, ${MANY}) i
       where id = $1`,
      [projectId, LIGHT],
    );
    const listed = await pages('ProjectService/ListProjects', {}, 'projects');
    assert.ok(listed.found.length > MANY && listed.pages > 4);
  });

  it('GetUser, BatchGetUsers and ListUsers answer 1 000 users', async () => {
    const first = await newUser(service, NAME);
    await service.users.updateUser({ user: { id: first, profile: STRUCT } });
    const light = await newUser(service, NAME);
    await service.users.updateUser({ user: { id: light, profile: LIGHT } });
    await admin.query(
      // An id that ends as theirs, since the profile is sealed for that.
      `insert into users (id, email, name, profile, profile_mac, caller, correlation_id)
       select id_ending(id), repeat('ä', 200) || i || '@example.org', name, profile, profile_mac, caller, correlation_id
       from users, generate_series(1, ${MANY}) i
       where id = case when i % 20 = 0 then $1::uuid else $2 end`,
      [first, light],
    );
    const { rows } = await admin.query(
      `select array_agg(id) as ids from (select id from users where email like 'ä%' limit ${MANY})`,
    );
    const { ids } = rows[0];
    await read('UserService/GetUser', { id: first });
    const got = (await read('UserService/BatchGetUsers', { ids })) as unknown as {
      users: { id: string }[];
      truncated: boolean;
    };
    assert.deepEqual(
      got.users.map(({ id }) => id),
      ids.slice(0, got.users.length),
      'those that fit, in order',
    );
    assert.ok(got.users.length > 10 && got.users.length < ids.length && got.truncated);
    assert.equal((await service.users.batchGetUsers({ ids: [ids[0], randomUUID()] })).truncated, false);
    const listed = await pages('UserService/ListUsers', { emailPrefix: 'ä' }, 'users', 3);
    assert.equal(listed.pages, 3);
  });

  it('ListMembers answers 1 000 members', async () => {
    await admin.query(
      `insert into project_members (project_id, user_id, role) select $1, id, 'VIEWER' from
         (select id from users u where not exists (select from project_members m where m.project_id = $1 and m.user_id = u.id)
          limit 997)`,
      [projectId],
    );
    const listed = await pages('ProjectService/ListMembers', { projectId }, 'members');
    assert.deepEqual([listed.found.length, listed.pages], [MANY, 1]);
  });

  it('GetVersion answers 3 MiB byte for byte, over JSON too', async () => {
    const { version } = (await read('DocumentService/GetVersion', {
      projectId,
      documentType: 'large',
      version: 2,
    })) as unknown as {
      version: DocumentVersion;
    };
    assert.ok(version.content === largest('two'));
    assert.equal(version.reason, TEXT);
    assert.deepEqual(version.metadata, STRUCT);
    // Six bytes of JSON for each of these: a response may be larger than a request.
    const content = '\u0001'.repeat(3 * MIB);
    await documents.appendVersion({ projectId, documentType: 'control', content });
    const response = await fetch(`http://${service.http}/jeex.persistence.v1.DocumentService/GetVersion`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ projectId, documentType: 'control' }),
    });
    const answer = (await response.json()) as { version: { content: string } };
    assert.ok(answer.version.content === content);
  });

  it('one byte more is refused', async () => {
    const call = documents.appendVersion({ projectId, documentType: 'more', content: `${largest('x')}y` });
    await assert.rejects(call, { reason: 'CONTENT_TOO_LARGE', fields: ['content'] });
  });

  for (const view of [View.FULL, View.BASIC]) {
    it(`ListVersions, ListDocuments and BatchGetVersions answer ${View[view]}`, async () => {
      const versions = await pages(
        'DocumentService/ListVersions',
        { projectId, documentType: 'large', view },
        'versions',
        3,
      );
      assert.equal(versions.found[0]?.version, MANY + 4);
      assert.ok(versions.found.every(({ version }, i) => version === MANY + 4 - i));
      if (view === View.FULL) assert.deepEqual([versions.found.length, versions.pages], [3, 3]);
      const listed = await pages('DocumentService/ListDocuments', { projectId, view }, 'documents', 4);
      assert.ok(listed.found.length >= 4);
      const names = Array.from({ length: 100 }, (_, i) => ({ documentType: 'large', version: i + 1 }));
      const got = (await read('DocumentService/BatchGetVersions', { projectId, names, view })) as unknown as {
        versions: Fields[];
        truncated: boolean;
      };
      assert.ok(got.versions.every(({ version }, i) => version === i + 1));
      assert.equal(got.versions.length >= 10, view === View.BASIC);
      assert.equal(got.truncated, got.versions.length < names.length);
      const few = [...names.slice(0, 1), { documentType: 'large', version: MANY * 9 }];
      assert.equal((await documents.batchGetVersions({ projectId, names: few, view })).truncated, false);
    });
  }

  it('DiffVersions of two unlike documents answers, and says that it ended early', async () => {
    for (const [fromVersion, toVersion] of [
      [3, 4],
      [1, 2],
    ]) {
      const request = { projectId, documentType: 'large', fromVersion, toVersion, contextLines: 1000 };
      const { truncated } = (await read('DocumentService/DiffVersions', request)) as unknown as { truncated: boolean };
      assert.equal(truncated, true);
    }
  });

  it('SearchDocuments answers', async () => {
    const found = await pages('DocumentService/SearchDocuments', { projectId, query: 'x' }, 'matches', 2);
    assert.ok(found.found.length > 10);
  });

  it('a run with 1 MiB in and 1 MiB out, started, completed and read', async () => {
    const payload = { contentType: '😀'.repeat(255), data: Buffer.alloc(MIB, 1) };
    const agentType = LONG;
    await executions.createExecution({ projectId, agentType, input: payload });
    const claimed = await executions.claimExecution({ agentTypes: [agentType] });
    const { leaseToken } = claimed;
    const id = claimed.execution?.id ?? '';
    const request = { projectId, id, leaseToken, output: payload, model: LONG };
    await executions.completeExecution(request);
    const { execution } = (await read('AgentExecutionService/GetExecution', { projectId, id })) as unknown as {
      execution: { input: typeof payload; output: typeof payload };
    };
    assert.ok(
      Buffer.from(execution.input.data).equals(payload.data) && Buffer.from(execution.output.data).equals(payload.data),
    );
  });

  it('CompleteExecution with 100 versions answers them', async () => {
    const run = await executions.createExecution({ projectId, agentType: 'a', start: true });
    const entry = (i: number) => ({
      documentType: `hundred.${i % 7}`,
      content: `${i}`,
      metadata: { a: STRUCT.a.slice(0, 1500) },
      reason: TEXT,
    });
    const versions = Array.from({ length: 100 }, (_, i) => entry(i));
    const request = { projectId, id: run.execution?.id ?? '', leaseToken: run.leaseToken, versions };
    const answer = (await callOf(service, methodOf('AgentExecutionService/CompleteExecution'))(request)) as unknown as {
      versions: Fields[];
    };
    assert.equal(answer.versions.length, 100);
    const batch = versions.map(({ content, ...rest }) => ({ ...rest, content: `${content}.` }));
    const appended = await documents.batchAppendVersions({ projectId, entries: batch });
    assert.equal(appended.versions.length, 100);
  });

  it('ListExecutions answers 1 000 runs with the longest explanations', async () => {
    const second = 1_600_000_000n;
    const ended = {
      status: ExecutionStatus.FAILED,
      startTime: { seconds: second },
      completeTime: { seconds: second + 1n },
    };
    const long = { agentType: LONG, errorMessage: TEXT, cancelReason: TEXT, model: LONG, correlationId: CORRELATION };
    const { executions: made } = await executions.batchCreateExecutions({
      projectId,
      executions: [{ ...ended, ...long }],
    });
    await admin.query(
      `insert into agent_executions select (jsonb_populate_record(e, jsonb_build_object('id', uuidv7(), 'project_revision', 3000000 + i))).*
       from agent_executions e, generate_series(1, ${MANY}) i where e.project_id = $1 and e.id = $2`,
      [projectId, made[0]?.id],
    );
    const listed = await pages('AgentExecutionService/ListExecutions', { projectId, agentType: LONG }, 'executions');
    assert.ok(listed.found.length > MANY && listed.pages > 5);
  });

  it('an export of 1 000 documents is made, packed, read, listed and streamed', async () => {
    await admin.query('update projects set quota_documents = 100000 where id = $1', [projectId]);
    const documentTypes = Array.from({ length: MANY - 1 }, (_, i) => typeOf(i + 1));
    const request = { projectId, documentTypes: [...documentTypes, 'large'] };
    const made = (await callOf(service, methodOf('ExportService/CreateExport'))(request, {
      correlationId: CORRELATION,
    })) as unknown as {
      export: { id: string; manifest: { entries: Fields[] } };
    };
    assert.equal(made.export.manifest.entries.length, MANY);
    const { id } = made.export;
    const { leaseToken } = await exports.startExport({ projectId, id });
    const file = { filePath: '😀'.repeat(1024), fileSizeBytes: 1n, fileSha256: 'a'.repeat(64) };
    await exports.completeExport({ projectId, id, leaseToken, ...file });
    await read('ExportService/GetExport', { projectId, id });
    await admin.query(
      `insert into exports select (jsonb_populate_record(e, jsonb_build_object('id', uuidv7(), 'created_revision', 4000000 + i))).*
       from exports e, generate_series(1, 200) i where e.project_id = $1 and e.id = $2`,
      [projectId, id],
    );
    const listed = await pages('ExportService/ListExports', { projectId }, 'exports');
    assert.ok(listed.found.length > 200 && listed.pages > 5);

    const seen: string[] = [];
    for await (const { version } of exports.streamExportContent({ projectId, id })) {
      const hash = createHash('sha256')
        .update(version?.content ?? '')
        .digest('hex');
      assert.equal(hash, version?.contentSha256);
      seen.push(version?.documentType ?? '');
    }
    assert.deepEqual(seen, ['large', ...documentTypes]);
  });

  it('ListChanges, WatchProject and GetTimeline answer', async () => {
    const listed = await pages('ChangeService/ListChanges', { projectId }, 'changes');
    assert.deepEqual(
      listed.found.map(({ revision }) => Number(revision)),
      listed.found.map((_, i) => i + 1),
    );
    let watched = 0;
    for await (const { event } of changes.watchProject({ projectId, afterRevision: 0n })) {
      if (event.case === 'change') watched += 1;
      if (watched === listed.found.length) break;
    }
    const timeline = await pages('ChangeService/GetTimeline', { projectId, correlationId: CORRELATION }, 'items');
    const kinds = timeline.found.map(({ item }) => (item as { case: string }).case);
    const counts = ['version', 'execution', 'export'].map((kind) => kinds.filter((each) => each === kind).length);
    assert.deepEqual(counts, [MANY + 4, MANY + 1, 201], 'every item, each once');
  });
});
