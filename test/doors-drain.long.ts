import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { after, test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { Client, credentials, status } from '@grpc/grpc-js';
import { Health, HealthCheckResponseSchema } from '../src/gen/grpc/health/v1/health_pb.js';
import {
  ChangeService,
  type WatchProjectResponse,
  WatchProjectResponseSchema,
} from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { ExportService } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import {
  type Answers,
  callGrpc,
  type Echo,
  encode,
  endOf,
  pathOf,
  post,
  refusedGrpc,
  sendGrpc,
  streamGrpc,
  useEcho,
} from './support/echo.ts';
import { until } from './support/until.ts';

const { batchGetUsers } = UserService.method;
const { streamExportContent } = ExportService.method;
const { watchProject } = ChangeService.method;
const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';

const useSession = async (address: string): Promise<ClientHttp2Session> => {
  const session = connect(`http://${address}`);
  after(() => session.destroy());
  await once(session, 'remoteSettings');
  return session;
};

/** A request for some users, as bytes on a connection. */
const ask = (session: ClientHttp2Session) => {
  const headers = {
    ':method': 'POST',
    ':path': pathOf(batchGetUsers),
    'content-type': 'application/grpc',
    te: 'trailers',
  };
  const message = encode(batchGetUsers, { ids: [ID] });
  const stream = session.request(headers);
  stream.on('error', () => {}).resume();
  stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]));
  return stream;
};

/** With what code a stream was closed. */
const closed = (stream: ClientHttp2Stream): Promise<number | undefined> =>
  new Promise((resolve) => stream.once('close', () => resolve(stream.rstCode)));

const checkHealth = async (client: Client): Promise<number> => {
  const { bytes } = await sendGrpc(client, Health.method.check, encode(Health.method.check, { service: '' }));
  return fromBinary(HealthCheckResponseSchema, bytes ?? Buffer.alloc(0)).status;
};

/** Does something at the moment a service has told its clients to call elsewhere, before any of them has heard of it. */
const atGoaway = ({ health }: Echo, act: () => void): void => {
  const { endWatches } = health;
  health.endWatches = () => {
    health.endWatches = endWatches;
    act();
    endWatches();
  };
};

const ANSWERS: Answers = { 'UserService.batchGetUsers': async () => ({ users: [] }) };

test('a service that shall end is unready, and serves on until the balancers have turned away', async () => {
  const { doors, client, http, probes } = await useEcho(ANSWERS);
  const onProbes = new Client(probes ?? '', credentials.createInsecure());
  after(() => onProbes.close());
  const watch = streamGrpc(client, Health.method.watch, { service: '' });
  const statuses: number[] = [];
  watch.on('data', (bytes: Buffer) => statuses.push(fromBinary(HealthCheckResponseSchema, bytes).status));
  const watched = endOf(watch);
  await until(() => statuses.length === 1, 'the watch has begun');

  const drained = doors.drain(5000, 4000);
  for (const target of [client, onProbes]) assert.equal(await checkHealth(target), 2);
  const ready = await fetch(`${http}/readyz`);
  assert.deepEqual([ready.status, ready.headers.get('connection')], [503, 'close']);
  assert.deepEqual((await callGrpc(client, batchGetUsers, { ids: [ID] })).users, []);
  assert.equal((await post(http, batchGetUsers, JSON.stringify({ ids: [ID] }))).status, 200);
  await drained;
  assert.equal((await watched).error, null);
  assert.deepEqual(statuses, [1, 2]);
  await assert.rejects(fetch(`${http}/livez`));
  assert.equal(await checkHealth(onProbes), 2, 'the health port answers to the last');
});

test('what came in before the end is answered in full, and every client is told to call elsewhere', async () => {
  const { promise: mayEnd, resolve: end } = Promise.withResolvers<object>();
  let arrived = 0;
  const { doors, client, http, grpc } = await useEcho({
    'UserService.batchGetUsers': () => {
      arrived += 1;
      return mayEnd as Promise<object>;
    },
    'ExportService.streamExportContent': async function* () {
      arrived += 1;
      yield { version: { version: 1 } };
      await mayEnd;
      yield { version: { version: 2 } };
    } as never,
  });
  const inFlight = callGrpc(client, batchGetUsers, { ids: [ID] });
  const overHttp = post(http, batchGetUsers, JSON.stringify({ ids: [ID] }));
  const exported = streamGrpc(client, streamExportContent, { projectId: ID, id: ID });
  const messages: Buffer[] = [];
  exported.on('data', (bytes: Buffer) => messages.push(bytes));
  const exportEnd = endOf(exported);
  await until(() => arrived === 3 && messages.length === 1, 'the calls arrived');
  const idle = await useSession(grpc);
  const goaway = once(idle, 'goaway');
  const gone = once(idle, 'close');

  const drained = doors.drain(20_000);
  assert.equal((await goaway)[0], constants.NGHTTP2_NO_ERROR);
  await gone;
  end({ users: [] });
  assert.deepEqual((await inFlight).users, []);
  assert.equal((await overHttp).status, 200);
  assert.equal((await exportEnd).error, null);
  assert.equal(messages.length, 2);
  await drained;
  await doors.stop(20_000);
});

test('a watch ends behind its last message, with what its client needs to go on elsewhere', async () => {
  const { promise: more, resolve: send } = Promise.withResolvers<void>();
  const { doors, client } = await useEcho({
    'ChangeService.watchProject': async function* (request: { afterRevision?: bigint }) {
      yield { event: { case: 'change', value: { projectId: ID, revision: 1n } } };
      // The second asks from there, has heard nothing yet, and nothing comes.
      if (request.afterRevision === 1n) await new Promise(() => {});
      await more;
      for (let revision = 2n; ; revision += 1n) {
        yield { event: { case: 'change', value: { projectId: ID, revision } } };
        await new Promise((resolve) => setImmediate(resolve));
      }
    } as never,
  });
  const seen: WatchProjectResponse[] = [];
  const busy = streamGrpc(client, watchProject, { projectId: ID, afterRevision: 0n });
  busy.on('data', (bytes: Buffer) => seen.push(fromBinary(WatchProjectResponseSchema, bytes)));
  const busyEnd = endOf(busy);
  const quiet = streamGrpc(client, watchProject, { projectId: ID, afterRevision: 1n });
  const quietEnd = endOf(quiet);
  send();
  await until(() => seen.length > 10, 'the watch is busy');
  const drained = doors.drain(60_000);
  for (const end of [await busyEnd, await quietEnd]) {
    const refused = refusedGrpc(end);
    assert.deepEqual([refused.code, refused.reason, refused.retry], [status.UNAVAILABLE, 'SHUTTING_DOWN', true]);
  }
  const revisions = seen.map(({ event }) => (event.case === 'change' ? Number(event.value.revision) : 0));
  assert.deepEqual(
    revisions,
    Array.from({ length: seen.length }, (_, i) => i + 1),
  );
  await drained;
});

test('a call that crosses with the end is refused untouched', async () => {
  let called = 0;
  const echo = await useEcho({
    'UserService.batchGetUsers': async () => {
      called += 1;
      return { users: [] };
    },
  });
  const session = await useSession(echo.grpc);
  await closed(ask(session));
  assert.equal(called, 1);
  const late: Promise<number | undefined>[] = [];
  atGoaway(echo, () => late.push(closed(ask(session)), closed(ask(session))));
  const drained = echo.doors.drain(5000);
  await until(() => late.length === 2, 'the calls were sent');
  assert.deepEqual(await Promise.all(late), [constants.NGHTTP2_REFUSED_STREAM, constants.NGHTTP2_REFUSED_STREAM]);
  await drained;
  assert.equal(called, 1);
});

test('a stock client makes such a call elsewhere by itself, once', async () => {
  const calls = [0, 0];
  const counted = (index: number): Answers => ({
    'UserService.batchGetUsers': async () => {
      calls[index] = (calls[index] ?? 0) + 1;
      return { users: [] };
    },
  });
  const [one, other] = await Promise.all([useEcho(counted(0)), useEcho(counted(1))]);
  const client = new Client(`ipv4:${one.grpc},${other.grpc}`, credentials.createInsecure(), {
    'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  });
  after(() => client.close());
  const call = () => callGrpc(client, batchGetUsers, { ids: [ID] });
  await until(async () => {
    await call();
    return calls.every((count) => count > 0);
  }, 'both are called');
  const [before = 0] = calls;
  const sent = calls.reduce((sum, count) => sum + count);
  const pending: Promise<unknown>[] = [];
  atGoaway(one, () => {
    for (let i = 0; i < 50; i += 1) pending.push(call());
  });
  const drained = one.doors.drain(5000);
  await until(() => pending.length === 50, 'the calls were sent');
  await Promise.all(pending);
  await drained;
  assert.equal(calls[0], before, 'who leaves takes none of them');
  assert.equal((calls[0] ?? 0) + (calls[1] ?? 0), sent + 50);
});
