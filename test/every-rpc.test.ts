import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { type DescMethod, equals, type Message } from '@bufbuild/protobuf';
import { useEffects } from './support/effects.ts';
import { EXAMPLES, newWorld } from './support/examples.ts';
import { callOf, isRead, keyOf, METHODS } from './support/methods.ts';
import { useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { useService } from './support/service.ts';

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const service = await useService({ db, appUrl: () => proxy.url });
const effectOf = await useEffects(db);

const mutations = METHODS.filter((method) => !isRead(method));

const exampleOf = async (method: DescMethod) => {
  const make = EXAMPLES[keyOf(method)];
  assert.ok(make, `${keyOf(method)} has no example in support/examples.ts`);
  return make(await newWorld(service));
};

describe('every RPC', () => {
  it('has an example', () => {
    assert.deepEqual(Object.keys(EXAMPLES).sort(), METHODS.map(keyOf).sort());
  });

  describe('takes one round trip to the database', () => {
    /** Answered from what the monitor knows, and asks for by itself. */
    const NONE = new Set(['DatabaseService/GetDatabaseHealth', 'DatabaseService/GetHealthHistory']);
    for (const method of METHODS.filter(({ methodKind }) => methodKind === 'unary')) {
      it(keyOf(method), async () => {
        const { request, options } = await exampleOf(method);
        // Readiness and the sweeper ask the database too, each by itself: the quietest of a few calls counts.
        const before = proxy.roundTrips;
        await callOf(service, method)(request, options);
        let trips = proxy.roundTrips - before;
        const due = NONE.has(keyOf(method)) ? 0 : 1;
        for (let attempt = 0; attempt < 10 && trips > due; attempt++) {
          const again = isRead(method) ? { request, options } : await exampleOf(method);
          const start = proxy.roundTrips;
          await callOf(service, method)(again.request, again.options);
          trips = Math.min(trips, proxy.roundTrips - start);
        }
        assert.equal(trips, due);
      });
    }
  });
});

describe('50 parallel calls with one request_id', () => {
  for (const method of mutations) {
    it(`${keyOf(method)}: one effect, 50 equal answers, another request refused`, async () => {
      const call = callOf(service, method);
      const single = await exampleOf(method);
      const once = await effectOf(() => call(single.request, single.options));
      const { request, options } = await exampleOf(method);
      const requestId = randomUUID();
      let answers: Message[] = [];
      const effect = await effectOf(async () => {
        answers = await Promise.all(Array.from({ length: 50 }, () => call({ ...request, requestId }, options)));
      });
      assert.deepEqual(effect, once, 'the effect is that of one call');
      const [first] = answers;
      assert.ok(first);
      for (const answer of answers) assert.ok(equals(method.output, first, answer), 'an answer differs');
      const other = { ...request, ...differing(method, request), requestId };
      await assert.rejects(call(other, options), { reason: 'REQUEST_ID_REUSED' });
    });
  }
});

/** Another value for the first of these fields that a request has: whoever may send the one may send the other. */
const OTHER_VALUES: Readonly<Record<string, (request: Record<string, unknown>) => unknown>> = {
  reason: () => 'other',
  errorMessage: () => 'other',
  cancelReason: () => 'other',
  filePath: () => 'other',
  metadata: () => ({ other: true }),
  profile: () => ({ other: true }),
  leaseSeconds: () => 77,
  documentTypes: () => ['idea'],
  etag: () => 'v1',
  role: () => 1,
  quota: () => ({ versions: 3n }),
  entries: ({ entries }) => (entries as unknown[]).slice(1),
  executions: ({ executions }) => (executions as unknown[]).slice(1),
  versions: () => [],
  userId: () => randomUUID(),
  id: () => randomUUID(),
};

const differing = (method: DescMethod, request: Record<string, unknown>): Record<string, unknown> => {
  const names = method.input.fields.map(({ localName }) => localName);
  const name = Object.keys(OTHER_VALUES).find((each) => names.includes(each)) ?? '';
  return { [name]: OTHER_VALUES[name]?.(request) };
};

describe('a connection that breaks', () => {
  it('fails what was in flight with a retryable reason, and the next call is served', async () => {
    const { projectId, editor } = await newWorld(service);
    const calls = Array.from({ length: 40 }, (_, i) =>
      service.documents.appendVersion({ projectId, documentType: 'idea', content: `${i}` }, { actor: editor }).then(
        () => null,
        (error) => error,
      ),
    );
    proxy.cut();
    for (const error of (await Promise.all(calls)).filter((each) => each !== null)) {
      assert.equal(error.reason, 'DATABASE_UNAVAILABLE');
      assert.equal(error.retryable, true);
      assert.match(error.metadata.outcome, /^(unknown|not_applied)$/);
    }
    const { project } = await service.projects.getProject({ id: projectId }, { actor: editor });
    assert.equal(project?.id, projectId);
  });
});
