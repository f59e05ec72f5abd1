import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Metadata, StatusObject } from '@grpc/grpc-js';
import { ExportService } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { Refusal } from '../src/refusal.ts';
import type { Call } from '../src/rpc/call.ts';
import { encode, pathOf, post, sendGrpc, streamGrpc, useEcho } from './support/echo.ts';
import { newProject, useService } from './support/service.ts';

const { getProject } = ProjectService.method;
const { streamExportContent } = ExportService.method;
const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const REQUEST = { id: ID };
const STREAM = { projectId: ID, id: ID };
/** Asks the handlers below to fail. */
const FAIL = { 'x-actor-id': ID };

interface Spent {
  readonly queue: number;
  readonly db: number;
  readonly total: number;
}

const spentOf = (header: unknown): Spent => {
  const [, queue, db, total] = /^queue;dur=([\d.]+), db;dur=([\d.]+), total;dur=([\d.]+)$/.exec(String(header)) ?? [];
  assert.ok(total !== undefined, `no server-timing: ${header}`);
  return { queue: Number(queue), db: Number(db), total: Number(total) };
};

/** What the handlers below have spent. */
const assertSpent = (header: unknown): void => {
  const { queue, db, total } = spentOf(header);
  assert.equal(db, 2.25);
  // Its turn in the event loop is waited for too.
  assert.ok(queue > 1.5, `${queue} ms in the queue`);
  assert.ok(total > 0);
};

const spend = ({ timing, actor }: Call): void => {
  timing.queueMs += 1.5;
  timing.databaseMs += 2.25;
  if (actor !== null) throw new Refusal('PROJECT_NOT_FOUND', 'it was asked to fail');
};

const echo = await useEcho({
  'ProjectService.getProject': async (_: unknown, call: Call) => {
    spend(call);
    return {};
  },
  'ExportService.streamExportContent': async function* (_: unknown, call: Call) {
    yield {};
    spend(call);
  },
});

const first = (metadata: Metadata): unknown => metadata.get('server-timing')[0];

describe('over gRPC the header server-timing', () => {
  const ask = (headers: Record<string, string>) =>
    sendGrpc(echo.client, getProject, encode(getProject, REQUEST), headers);

  it('says what a call spent that was answered, and one that was refused', async () => {
    const answered = await ask({});
    assert.equal(answered.error, null);
    assertSpent(first(answered.headers));
    assert.ok(answered.headers.get('x-correlation-id')[0], 'it stands beside it');
    const refused = await ask(FAIL);
    assert.equal(refused.error?.code, 5);
    assertSpent(first(refused.headers));
  });

  it('says what a call spent that was refused at its headers', async () => {
    const { error, headers } = await ask({ 'x-actor-id': 'nobody' });
    assert.equal(error?.code, 3);
    assert.deepEqual([spentOf(first(headers)).queue, spentOf(first(headers)).db], [0, 0]);
  });

  it('of a stream stands among the trailers, however it ends', async () => {
    for (const [headers, code] of [
      [{}, 0],
      [FAIL, 5],
    ] as const) {
      const stream = streamGrpc(echo.client, streamExportContent, STREAM, headers);
      const { promise, resolve } = Promise.withResolvers<StatusObject>();
      stream
        .on('error', () => {})
        .on('status', resolve)
        .resume();
      const ended = await promise;
      assert.equal(ended.code, code);
      assertSpent(first(ended.metadata));
    }
  });
});

describe('over HTTP the header server-timing', () => {
  const ask = (headers: Record<string, string>) => post(echo.http, getProject, JSON.stringify(REQUEST), headers);

  it('says what a call spent that was answered, and one that was refused', async () => {
    const answered = await ask({});
    assert.equal(answered.status, 200);
    assertSpent(answered.headers.get('server-timing'));
    const refused = await ask(FAIL);
    assert.equal(refused.status, 404);
    assertSpent(refused.headers.get('server-timing'));
  });

  it('says what a call spent that was refused at its headers, or while it was read', async () => {
    for (const refused of [await ask({ 'x-actor-id': 'nobody' }), await post(echo.http, getProject, '{')]) {
      assert.equal(refused.status, 400);
      assert.equal(spentOf(refused.headers.get('server-timing')).db, 0);
    }
  });

  it('of a stream stands in its end, however it ends', async () => {
    for (const headers of [{}, FAIL]) {
      const request = Buffer.from(JSON.stringify(STREAM));
      const length = Buffer.alloc(5);
      length.writeUInt32BE(request.length, 1);
      const response = await fetch(echo.http + pathOf(streamExportContent), {
        method: 'POST',
        headers: { 'content-type': 'application/connect+json', 'connect-protocol-version': '1', ...headers },
        body: Buffer.concat([length, request]),
      });
      const text = Buffer.from(await response.arrayBuffer()).toString('latin1');
      const end = JSON.parse(text.slice(text.lastIndexOf('\x02') + 5)) as {
        error?: object;
        metadata: Record<string, string[]>;
      };
      assert.equal(end.error !== undefined, headers === FAIL);
      assertSpent(end.metadata['server-timing']?.[0]);
    }
  });

  it('may be read by the pages of other origins', async () => {
    const response = await ask({ origin: 'https://app.example' });
    assert.match(response.headers.get('access-control-expose-headers') ?? '', /server-timing/);
  });
});

describe('a call that asks the database', async () => {
  const service = await useService();
  const { projectId, owner } = await newProject(service);

  it('tells how long that took, out of its whole time', async () => {
    const body = JSON.stringify({ id: projectId });
    const response = await post(`http://${service.http}`, getProject, body, { 'x-actor-id': owner });
    const { queue, db, total } = spentOf(response.headers.get('server-timing'));
    assert.ok(db > 0 && queue > 0 && queue + db < total, `${queue} + ${db} of ${total}`);
  });
});
