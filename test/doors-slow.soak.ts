import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { after, test } from 'node:test';
import type { DescMethod } from '@bufbuild/protobuf';
import { DocumentService } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { openChannel } from './support/client.ts';
import { encode, pathOf } from './support/echo.ts';
import { useTestDatabase } from './support/postgres.ts';
import { clientsOn, ENCRYPTION_KEY, newProject } from './support/service.ts';
import { spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

// Clients that ask for a gigabyte of documents and take in none of it, against a service in a process of its own.

const CONNECTIONS = 4;
const STREAMS = 256;
const MEGABYTE = 1024 * 1024;
/** Far more than they may leave unread: what is read from the database and encoded meanwhile comes on top. */
const MOST_MEGABYTES = 512;

const residentMegabytes = (pid: number): number => {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) / 1024;
};

const ask = (session: ClientHttp2Session, method: DescMethod, request: object, actor: string): ClientHttp2Stream => {
  const call = { ':method': 'POST', ':path': pathOf(method), 'content-type': 'application/grpc', te: 'trailers' };
  const message = encode(method, request);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  const stream = session.request({ ...call, 'x-actor-id': actor });
  stream.on('error', () => {}).resume();
  stream.end(Buffer.concat([prefix, message]));
  return stream;
};

test('clients that take in nothing hold a bounded part of the memory, and for a bounded time', async (t) => {
  const db = await useTestDatabase();
  const service = await spawnService({
    DATABASE_URL: db.appUrl,
    MIGRATE: 'check',
    ENCRYPTION_KEYS: ENCRYPTION_KEY,
    LOG_LEVEL: 'warn',
    ACCESS_LOG: '/dev/null',
  });
  const channel = openChannel(service.grpc);
  after(() => channel.close());
  const clients = clientsOn(channel);
  const { projectId, owner } = await newProject(clients);
  const document = { projectId, documentType: 'large' };
  await clients.documents.appendVersion({ ...document, content: 'x'.repeat(MEGABYTE) }, { actor: owner });
  const pid = service.process.pid ?? 0;
  const before = residentMegabytes(pid);

  const codes: (number | undefined)[] = [];
  for (let i = 0; i < CONNECTIONS; i += 1) {
    const session = connect(`http://${service.grpc}`, { settings: { initialWindowSize: 0 } });
    after(() => session.destroy());
    await once(session, 'remoteSettings');
    for (let j = 0; j < STREAMS; j += 1) {
      const stream = ask(session, DocumentService.method.getVersion, { ...document, version: 1 }, owner);
      stream.once('close', () => codes.push(stream.rstCode));
    }
  }
  let most = 0;
  let health = 0;
  await until(
    async () => {
      const asked = performance.now();
      assert.equal((await fetch(`http://${service.http}/livez`)).status, 200);
      health = Math.max(health, performance.now() - asked);
      most = Math.max(most, residentMegabytes(pid));
      return codes.length === CONNECTIONS * STREAMS;
    },
    'all were cut off',
    120_000,
  );
  t.diagnostic(
    `resident: ${before.toFixed()} MB before, ${most.toFixed()} MB at most; /livez within ${health.toFixed()} ms`,
  );
  assert.ok(most - before < MOST_MEGABYTES, `${most - before} MB more`);
  assert.deepEqual(new Set(codes), new Set([constants.NGHTTP2_ENHANCE_YOUR_CALM]));
  const { version } = await clients.documents.getVersion({ ...document, version: 1 }, { actor: owner });
  assert.equal(version?.content.length, MEGABYTE);
});
