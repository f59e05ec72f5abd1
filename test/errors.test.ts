import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { create, toJsonString } from '@bufbuild/protobuf';
import { Role } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { REASONS, type Reason } from '../src/refusal.ts';
import { CODES, Code } from '../src/rpc/errors.ts';
import type { CallError } from './support/client.ts';
import { encode, post, type Refused, refusedGrpc, refusedHttp, sendGrpc } from './support/echo.ts';
import { grpcWeb } from './support/echo-wire.ts';
import { newWorld } from './support/examples.ts';
import { lockProject, untilBlocked } from './support/locks.ts';
import { type Fields, isRead, methodOf, outcomeOf } from './support/methods.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { newUser, type TestService, useService } from './support/service.ts';
import { useIssuer } from './support/tokens.ts';
import { until } from './support/until.ts';

const LOCK_TIMEOUT_MS = 400;

const db = await useTestDatabase();
const admin = await connectAs(db.adminUrl);
await admin.query(`alter role jeex_app in database ${db.name} set lock_timeout = '${LOCK_TIMEOUT_MS}ms'`);
// A user whose name says so is refused with any SQLSTATE, as a database in trouble would.
await admin.query(`
  create sequence attempts;
  create function fail_on_purpose() returns trigger language plpgsql security definer set search_path = jeex as $$
  begin
    if new.name like 'sqlstate %' then
      perform nextval('attempts');
      raise exception 'select secret from insides' using errcode = substr(new.name, 10);
    end if;
    return new;
  end $$;
  create trigger fail_on_purpose before insert on users for each row execute function fail_on_purpose();`);
const proxy = await useProxy(db.appUrl);
const service = await useService({ db, appUrl: () => proxy.url });
const { projects, documents, executions, exports, users } = service;

/** How a reason comes about: a call that is refused with it each time it is sent. */
interface Cause {
  readonly rpc: string;
  readonly request: Fields;
  readonly actor?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly fields?: readonly string[];
  readonly deadlineMs?: number;
  /** Instead of the file's service. */
  readonly via?: TestService;
  /** What brings it about once the calls of both doors are under way. */
  readonly meanwhile?: () => Promise<unknown>;
  /** Takes away what brings the reason about. */
  readonly undo?: () => Promise<unknown>;
}

const CORRELATION = '0190f3a1-7b8c-7d2e-8f3a-000000000001';

/** Sends a call through one door. */
const send = async (door: 'grpc' | 'http', cause: Cause): Promise<Refused> => {
  const method = methodOf(cause.rpc);
  const { channel, http } = cause.via ?? service;
  const headers: Record<string, string> = { 'x-correlation-id': CORRELATION };
  if (cause.actor !== undefined) headers['x-actor-id'] = cause.actor;
  if (door === 'http') {
    if (cause.deadlineMs !== undefined) headers['connect-timeout-ms'] = String(cause.deadlineMs);
    const json = toJsonString(method.input, create(method.input, cause.request));
    return await refusedHttp(await post(`http://${http}`, method, json, headers));
  }
  // As a header, so that it is the server's deadline alone, and its answer is seen.
  if (cause.deadlineMs !== undefined) headers['grpc-timeout'] = `${cause.deadlineMs}m`;
  return refusedGrpc(await sendGrpc(channel, method, encode(method, cause.request), headers));
};

/** Through one door, then through the other; both at once where something has to happen meanwhile. */
const sendBoth = async (cause: Cause): Promise<readonly [Refused, Refused]> => {
  if (!cause.meanwhile) return [await send('grpc', cause), await send('http', cause)];
  const both = Promise.all([send('grpc', cause), send('http', cause)]);
  await cause.meanwhile();
  return await both;
};

const newEmail = () => `${randomUUID()}@example.org`;
const newExport = async (ttl?: { nanos: number }) => {
  const { projectId } = await newWorld(service);
  const made = await exports.createExport({ projectId, ...(ttl && { ttl }) });
  return { projectId, id: made.export?.id ?? '' };
};
/** Two calls that wait for a lock when a service ends that waits for nobody. */
const end = async (): Promise<Cause> => {
  const via = await useService({ db, env: { SHUTDOWN_GRACE_SECONDS: '0' } });
  const holder = await connectAs(db.adminUrl);
  await holder.query('begin; lock table projects in access exclusive mode');
  const meanwhile = async () => {
    await untilBlocked(admin, 2);
    await via.stop();
  };
  const undo = async () => void (await holder.query('rollback'));
  return { rpc: 'ProjectService/ListProjects', request: {}, via, meanwhile, undo };
};

const CAUSES: Readonly<Partial<Record<Reason, () => Promise<Cause>>>> = {
  INVALID_FIELD: async () => ({
    rpc: 'DocumentService/BatchAppendVersions',
    request: { projectId: randomUUID(), entries: [{ documentType: 'ok' }, { documentType: 'not ok' }] },
    fields: ['entries[1].document_type'],
  }),
  CONTENT_TOO_LARGE: async () => ({
    rpc: 'UserService/CreateUser',
    request: { email: newEmail(), name: 'N', profile: { x: 'x'.repeat(17_000) } },
    fields: ['profile'],
  }),
  INVALID_PAGE_TOKEN: async () => ({
    rpc: 'UserService/ListUsers',
    request: { pageToken: 'forged' },
    fields: ['page_token'],
  }),
  REQUEST_ID_REUSED: async () => {
    const requestId = randomUUID();
    await users.createUser({ email: newEmail(), name: 'First', requestId });
    const request = { email: newEmail(), name: 'Second', requestId };
    return { rpc: 'UserService/CreateUser', request, fields: ['request_id'] };
  },
  LANGUAGE_IMMUTABLE: async () => {
    const { projectId: id, owner: actor } = await newWorld(service);
    const request = { project: { id, language: 'de' } };
    return { rpc: 'ProjectService/UpdateProject', request, actor, fields: ['project.language'] };
  },
  USER_NOT_FOUND: async () => ({ rpc: 'UserService/GetUser', request: { id: randomUUID() } }),
  PROJECT_NOT_FOUND: async () => ({
    rpc: 'ProjectService/GetProject',
    request: { id: randomUUID() },
    actor: await newUser(service),
  }),
  MEMBER_NOT_FOUND: async () => {
    const { projectId, stranger: userId } = await newWorld(service);
    return { rpc: 'ProjectService/RemoveMember', request: { projectId, userId } };
  },
  DOCUMENT_NOT_FOUND: async () => {
    const { projectId } = await newWorld(service);
    return { rpc: 'DocumentService/RestoreVersion', request: { projectId, documentType: 'idea', version: 1 } };
  },
  VERSION_NOT_FOUND: async () => {
    const { projectId } = await newWorld(service);
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'x' });
    const request = { projectId, documentType: 'idea', version: 9 };
    return { rpc: 'DocumentService/GetVersion', request, fields: ['version'] };
  },
  EXECUTION_NOT_FOUND: async () => {
    const { projectId } = await newWorld(service);
    return { rpc: 'AgentExecutionService/GetExecution', request: { projectId, id: randomUUID() } };
  },
  EXPORT_NOT_FOUND: async () => {
    const { projectId } = await newWorld(service);
    return { rpc: 'ExportService/RecordDownload', request: { projectId, id: randomUUID() } };
  },
  EMAIL_TAKEN: async () => {
    const email = newEmail();
    await users.createUser({ email, name: 'First' });
    return { rpc: 'UserService/CreateUser', request: { email, name: 'Second' } };
  },
  ETAG_MISMATCH: async () => {
    const { projectId: id } = await newWorld(service);
    return { rpc: 'ProjectService/DeleteProject', request: { id, etag: 'stale' } };
  },
  VERSION_CONFLICT: async () => {
    const { projectId } = await newWorld(service);
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'x' });
    const request = { projectId, documentType: 'idea', content: 'y', expectedVersion: 0 };
    return { rpc: 'DocumentService/AppendVersion', request, metadata: { current_version: '1' } };
  },
  ILLEGAL_TRANSITION: async () => {
    const { projectId } = await newWorld(service);
    const { execution } = await executions.createExecution({ projectId, agentType: 'a', start: true });
    const request = { projectId, id: execution?.id };
    const metadata = { from: 'RUNNING', to: 'RUNNING' };
    return { rpc: 'AgentExecutionService/StartExecution', request, metadata };
  },
  LAST_OWNER: async () => {
    const { projectId, owner: userId } = await newWorld(service);
    return { rpc: 'ProjectService/SetMember', request: { projectId, userId, role: Role.VIEWER }, actor: userId };
  },
  PROJECT_DELETED: async () => {
    const { projectId, owner: actor } = await newWorld(service);
    await projects.deleteProject({ id: projectId });
    return { rpc: 'DocumentService/AppendVersion', request: { projectId, documentType: 'a', content: 'x' }, actor };
  },
  LEASE_LOST: async () => {
    const { projectId } = await newWorld(service);
    const { execution } = await executions.createExecution({ projectId, agentType: 'a', start: true });
    const request = { projectId, id: execution?.id, leaseToken: randomUUID() };
    return { rpc: 'AgentExecutionService/HeartbeatExecution', request };
  },
  EXPORT_EXPIRED: async () => ({ rpc: 'ExportService/RecordDownload', request: await newExport({ nanos: 1000 }) }),
  EXPORT_NOT_READY: async () => ({
    rpc: 'ExportService/RecordDownload',
    request: await newExport(),
    metadata: { status: 'PENDING' },
  }),
  QUOTA_EXCEEDED: async () => {
    const { projectId } = await newWorld(service);
    await projects.setProjectQuota({ projectId, quota: { documents: 0n } });
    const request = { projectId, documentType: 'idea', content: 'x' };
    const metadata = { quota: 'documents', limit: '0', used: '0' };
    return { rpc: 'DocumentService/AppendVersion', request, metadata };
  },
  REVISION_COMPACTED: async () => {
    const { projectId } = await newWorld(service);
    // As if the oldest changes had been thinned out.
    await admin.query('update projects set earliest_revision = 2 where id = $1', [projectId]);
    const request = { projectId, afterRevision: 1n };
    return { rpc: 'ChangeService/ListChanges', request, metadata: { earliest_revision: '2' } };
  },
  UNAUTHENTICATED: async () => {
    const { env } = await useIssuer();
    return { rpc: 'ProjectService/ListProjects', request: {}, via: await useService({ db, env }) };
  },
  ROLE_REQUIRED: async () => {
    const { projectId, viewer: actor } = await newWorld(service);
    return { rpc: 'ProjectService/UpdateProject', request: { project: { id: projectId, name: 'X' } }, actor };
  },
  SCOPE_REQUIRED: async () => ({
    rpc: 'ProjectService/PurgeProject',
    request: { id: randomUUID() },
    actor: await newUser(service),
    metadata: { scope: 'admin' },
  }),
  ACTOR_UNKNOWN: async () => ({ rpc: 'ProjectService/ListProjects', request: {}, actor: randomUUID() }),
  CONTENTION: async () => {
    const { projectId } = await newWorld(service);
    const undo = await lockProject(db, projectId);
    return { rpc: 'DocumentService/AppendVersion', request: { projectId, documentType: 'a', content: 'x' }, undo };
  },
  DATABASE_UNAVAILABLE: async () => {
    const { projectId } = await newWorld(service);
    proxy.down = true;
    // What the pool had idle is found broken by this call at the latest; from here on nothing can be sent.
    await projects.getProject({ id: projectId }).catch(() => {});
    const undo = async () => {
      proxy.down = false;
      await until(
        async () => (await outcomeOf(projects.getProject({ id: projectId }))) === 'OK',
        'calls are served again',
      );
    };
    return { rpc: 'DocumentService/AppendVersion', request: { projectId, documentType: 'a', content: 'x' }, undo };
  },
  OVERLOADED: async () => {
    // One connection for callers, which waits for a lock.
    const via = await useService({ db, env: { POOL_SIZE: '2', POOL_WAIT_MS: '20' } });
    const { projectId } = await newWorld(service);
    const release = await lockProject(db, projectId);
    const holding = via.projects.updateProject({ project: { id: projectId, name: 'Held' } });
    await untilBlocked(admin, 1);
    const undo = async () => {
      await release();
      await holding.catch(() => {});
    };
    return { rpc: 'UserService/CreateUser', request: { email: newEmail(), name: 'N' }, via, undo };
  },
  SHUTTING_DOWN: end,
  // The transport of gRPC answers a deadline of the client by itself; PostgreSQL's own limit comes through both doors.
  DEADLINE: async () => ({ rpc: 'UserService/CreateUser', request: { email: newEmail(), name: 'sqlstate 57014' } }),
  INTERNAL: async () => ({ rpc: 'UserService/CreateUser', request: { email: newEmail(), name: 'sqlstate XX000' } }),
};

const RETRYABLE: readonly Reason[] = ['OVERLOADED', 'CONTENTION', 'DATABASE_UNAVAILABLE', 'SHUTTING_DOWN'];

describe('every reason of the contract is answered the same through both doors', () => {
  for (const reason of REASONS) {
    it(reason, async () => {
      const make = CAUSES[reason];
      assert.ok(make, `nothing here brings ${reason} about`);
      const cause = await make();
      const [overGrpc, overHttp] = await sendBoth(cause).finally(cause.undo);
      const mutation = !isRead(methodOf(cause.rpc));
      const { message, pushback, ...rest } = overGrpc;
      assert.deepEqual(rest, {
        code: Code[CODES[reason]],
        reason,
        metadata: { ...cause.metadata, ...(mutation && { outcome: 'not_applied' }) },
        fields: cause.fields ?? [],
        retry: RETRYABLE.includes(reason),
        correlationId: CORRELATION,
      });
      // When to send it again is drawn anew for each refusal.
      for (const each of [pushback, overHttp.pushback]) assert.equal(each !== undefined, RETRYABLE.includes(reason));
      assert.doesNotMatch(message, /select|secret|insides|\bat \w+ \(/i);
      assert.notEqual(message, '');
      assert.deepEqual({ ...overHttp, pushback }, overGrpc);
    });
  }

  it('and over gRPC-Web', async () => {
    for (const reason of ['VERSION_CONFLICT', 'EMAIL_TAKEN', 'INVALID_FIELD', 'INTERNAL'] as const) {
      const cause = (await CAUSES[reason]?.()) as Cause;
      const method = methodOf(cause.rpc);
      const { refused } = await grpcWeb(`http://${service.http}`, method, encode(method, cause.request));
      const { correlationId: own, ...seen } = refused as Refused;
      const { correlationId: _, ...expected } = await send('grpc', cause);
      assert.deepEqual({ ...seen, message: decodeURIComponent(seen.message) }, expected);
      assert.match(own ?? '', /^[0-9a-f-]{36}$/);
    }
  });
});

describe('trouble in the database', () => {
  const attempts = async () =>
    Number((await admin.query('select last_value, is_called from attempts')).rows[0].last_value);
  const MEANINGS: readonly [string, Reason, number][] = [
    ['40001', 'CONTENTION', 4],
    ['40P01', 'CONTENTION', 4],
    ['55P03', 'CONTENTION', 1],
    ['57014', 'DEADLINE', 1],
    ['53300', 'OVERLOADED', 1],
    ['53200', 'DATABASE_UNAVAILABLE', 1],
    ['22012', 'INTERNAL', 1],
    ['P0001', 'INTERNAL', 1],
    ['42P01', 'INTERNAL', 1],
  ];
  for (const [sqlstate, reason, tries] of MEANINGS) {
    it(`${sqlstate} is ${reason} after ${tries} ${tries === 1 ? 'try' : 'tries'}, and its text stays inside`, async () => {
      await admin.query(`select setval('attempts', 1)`);
      const error = await users.createUser({ email: newEmail(), name: `sqlstate ${sqlstate}` }).then(
        () => assert.fail('it was not refused'),
        (thrown) => thrown as CallError,
      );
      assert.deepEqual([error.reason, error.metadata.outcome], [reason, 'not_applied']);
      assert.doesNotMatch(JSON.stringify([error.message, error.metadata]), /secret|insides|select/);
      assert.equal((await attempts()) - 1, tries);
    });
  }

  it('that takes an answer away leaves the outcome unknown, and the next call is served', async () => {
    const { projectId } = await newWorld(service);
    const release = await lockProject(db, projectId);
    const call = documents.appendVersion({ projectId, documentType: 'a', content: 'x' });
    const expected = assert.rejects(call, { reason: 'DATABASE_UNAVAILABLE', metadata: { outcome: 'unknown' } });
    await untilBlocked(admin, 1);
    proxy.cut();
    await expected;
    await release();
    assert.equal((await projects.getProject({ id: projectId })).project?.id, projectId);
  });
});

describe('a deadline of the client', () => {
  it('cancels the statement in PostgreSQL, and says that nothing took effect', async () => {
    const { projectId } = await newWorld(service);
    const release = await lockProject(db, projectId);
    const request = { projectId, documentType: 'a', content: 'x' };
    const cause = { rpc: 'DocumentService/AppendVersion', request, deadlineMs: LOCK_TIMEOUT_MS / 2 };
    const overHttp = await send('http', cause);
    assert.deepEqual([overHttp.code, overHttp.reason], [Code.DEADLINE_EXCEEDED, 'DEADLINE']);
    assert.deepEqual([overHttp.metadata, overHttp.retry], [{ outcome: 'not_applied' }, false]);
    await untilBlocked(admin, 0);
    assert.equal((await send('grpc', cause)).code, Code.DEADLINE_EXCEEDED);
    await untilBlocked(admin, 0);
    await release();
    const { usage } = await projects.getProjectUsage({ projectId });
    assert.equal(usage?.versions, 0n);
  });
});
