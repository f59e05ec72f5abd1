import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type DescMethod, fromBinary } from '@bufbuild/protobuf';
import { status } from '@grpc/grpc-js';
import { Health, HealthCheckResponseSchema } from '../src/gen/grpc/health/v1/health_pb.js';
import { ChangeService } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { DocumentService } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import type { Call } from '../src/rpc/call.ts';
import { parseAddress } from '../src/rpc/listen.ts';
import { createListener } from '../src/rpc/listener.ts';
import { limitUnread } from '../src/rpc/unread.ts';
import { type Answers, encode, pathOf, sendGrpc, useEcho } from './support/echo.ts';
import { until } from './support/until.ts';

const { watchProject } = ChangeService.method;
const { getVersion } = DocumentService.method;
const { streamExportContent } = ExportService.method;
const { check } = Health.method;
const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const MEGABYTE = 'x'.repeat(1024 * 1024);
const VERSION = { version: { version: 1, content: MEGABYTE } };

/** A client whose window stays shut: it takes in headers, and no message. */
const useShut = (address: string): ClientHttp2Session => {
  const session = connect(`http://${address}`, { settings: { initialWindowSize: 0 } });
  after(() => session.destroy());
  return session;
};

const send = (session: ClientHttp2Session, method: DescMethod, request: object): ClientHttp2Stream => {
  const headers = { ':method': 'POST', ':path': pathOf(method), 'content-type': 'application/grpc', te: 'trailers' };
  const message = encode(method, request);
  const stream = session.request(headers);
  stream.on('error', () => {}).resume();
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  stream.end(Buffer.concat([prefix, message]));
  return stream;
};

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** What this process holds in buffers. */
const heldBytes = (): number => {
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
};

/** With what code a stream was closed. */
const closed = (stream: ClientHttp2Stream): Promise<number | undefined> =>
  new Promise((resolve) => stream.once('close', () => resolve(stream.rstCode)));

describe('a client that takes in nothing', async () => {
  const signals: AbortSignal[] = [];
  const answers: Answers = {
    'DocumentService.getVersion': async () => VERSION,
    'ExportService.streamExportContent': async function* (_: object, { signal }: Call) {
      signals.push(signal);
      for (let i = 0; i < 64; i += 1) yield VERSION;
    } as never,
  };
  const { grpc, http, client } = await useEcho(answers, { unread: limitUnread(300) });

  it('is cut off after a while, whether it was answered, streamed to or refused', async () => {
    const session = useShut(grpc);
    const answered = send(session, getVersion, { projectId: ID, documentType: 'prd', version: 1 });
    const streamed = send(session, streamExportContent, { projectId: ID, id: ID });
    const refused = send(session, getVersion, { projectId: 'none' });
    for (const code of await Promise.all([answered, streamed, refused].map(closed))) {
      assert.equal(code, constants.NGHTTP2_ENHANCE_YOUR_CALM);
    }
    await until(() => signals.length > 0 && signals.every(({ aborted }) => aborted), 'the handler has heard of it');
  });

  it('is cut off over HTTP too', async () => {
    const { hostname, port } = new URL(http);
    const socket = connectTcp(Number(port), hostname);
    const body = encode(streamExportContent, { projectId: ID, id: ID });
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(body.length, 1);
    const head = [
      `POST ${pathOf(streamExportContent)} HTTP/1.1`,
      'host: localhost',
      'content-type: application/connect+proto',
      `content-length: ${body.length + 5}`,
    ];
    const before = signals.length;
    socket.write(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), prefix, body]));
    // A socket that is paused does not see that it was closed; the handler does.
    socket.on('error', () => {}).pause();
    after(() => socket.destroy());
    await until(() => signals.length > before, 'the stream was opened');
    await until(() => signals.at(-1)?.aborted === true, 'the service has closed it');
  });

  it('does not disturb one that reads', async () => {
    const session = useShut(grpc);
    const cut = closed(send(session, streamExportContent, { projectId: ID, id: ID }));
    for (let i = 0; i < 3; i += 1) {
      const { error } = await sendGrpc(
        client,
        getVersion,
        encode(getVersion, { projectId: ID, documentType: 'prd', version: 1 }),
      );
      assert.equal(error, null);
    }
    assert.equal(await cut, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });
});

describe('clients that take in nothing, all together', async () => {
  const MOST = 8 * 1024 * 1024;
  const STREAMS = 48;
  let answered = 0;
  const answers: Answers = {
    'DocumentService.getVersion': async () => {
      answered += 1;
      return VERSION;
    },
  };
  const { grpc, client } = await useEcho(answers, { unread: limitUnread(60_000, MOST) });

  it('hold no more memory than they may, and the slowest is cut off first', async () => {
    const sessions = [useShut(grpc), useShut(grpc)];
    const streams = Array.from({ length: STREAMS }, (_, i) =>
      send(sessions[i % 2] as ClientHttp2Session, getVersion, { projectId: ID, documentType: 'prd', version: 1 }),
    );
    const codes: (number | undefined)[] = [];
    for (const stream of streams) closed(stream).then((code) => codes.push(code));
    const kept = Math.floor(MOST / MEGABYTE.length) - 1;
    await until(() => answered === STREAMS && codes.length >= STREAMS - kept - 1, 'the slowest were cut off');
    assert.deepEqual(new Set(codes), new Set([constants.NGHTTP2_ENHANCE_YOUR_CALM]));
    assert.ok(codes.length < STREAMS, 'and not all of them');
    await until(() => heldBytes() < 2 * MOST, 'what was cut off is free again');
    const { bytes } = await sendGrpc(client, check, encode(check, { service: '' }));
    assert.equal(fromBinary(HealthCheckResponseSchema, bytes ?? Buffer.alloc(0)).status, 1);
  });
});

describe('a connection that has had its time', async () => {
  const { promise: more, resolve: goOn } = Promise.withResolvers<void>();
  const heartbeat = (revision: bigint) => ({ event: { case: 'heartbeat', value: { projectId: ID, revision } } });
  const answers: Answers = {
    'ChangeService.watchProject': async function* () {
      yield heartbeat(1n);
      await more;
      yield heartbeat(2n);
      await new Promise(() => {});
    } as never,
  };
  const { grpc, http } = await useEcho(answers, { connectionAgeMs: 300 });

  it('takes no more calls, and a watch on it ends behind a message', async () => {
    const session = connect(`http://${grpc}`);
    const goaway = once(session, 'goaway');
    const gone = once(session, 'close');
    const stream = send(session, watchProject, { projectId: ID });
    const trailers = once(stream, 'trailers');
    let messages = 0;
    stream.on('data', () => {
      messages += 1;
    });
    assert.equal((await goaway)[0], constants.NGHTTP2_NO_ERROR);
    assert.deepEqual([messages, stream.closed], [1, false]);
    goOn();
    const [said] = await trailers;
    assert.deepEqual([Number(said['grpc-status']), messages], [status.UNAVAILABLE, 2]);
    assert.ok(said['grpc-retry-pushback-ms']);
    await gone;
  });

  it('is closed behind an answer over HTTP', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    after(() => agent.destroy());
    const ask = async (): Promise<IncomingMessage> => {
      const [response] = await once(httpRequest(`${http}/livez`, { agent }).end(), 'response');
      response.resume();
      await once(response, 'end');
      return response;
    };
    assert.equal((await ask()).headers.connection, 'keep-alive');
    await until(async () => (await ask()).headers.connection === 'close', 'it was told');
    assert.equal((await ask()).headers.connection, 'keep-alive', 'the next one is new');
  });
});

it('one gRPC connection has so many calls at a time', async () => {
  const { grpc } = await useEcho({});
  const session = useShut(grpc);
  const [settings] = await once(session, 'remoteSettings');
  assert.equal(settings.maxConcurrentStreams, 256);
});

it('a server turns away who comes when it has as many connections as it may', async () => {
  const listener = createListener(
    createServer((socket) => socket.write('hello')),
    2,
  );
  after(() => Promise.all([listener.close(), listener.destroy()]));
  const { port } = parseAddress(await listener.listen(parseAddress('127.0.0.1:0')));
  const open = () => connectTcp(port, '127.0.0.1').on('error', () => {});
  const isTaken = (socket: Socket) =>
    Promise.race([once(socket, 'data').then(() => true), once(socket, 'close').then(() => false)]);
  const first = [open(), open()];
  assert.deepEqual(await Promise.all(first.map(isTaken)), [true, true]);
  assert.equal(await isTaken(open()), false);
  first[0]?.destroy();
  await until(() => isTaken(open()), 'there is a place again');
});
