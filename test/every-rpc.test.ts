import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EXAMPLES, exampleOf, newWorld } from './support/examples.ts';
import { callOf, isRead, keyOf, METHODS } from './support/methods.ts';
import { useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { useService } from './support/service.ts';

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const service = await useService({ db, appUrl: () => proxy.url });

describe('every RPC', () => {
  it('has an example', () => {
    assert.deepEqual(Object.keys(EXAMPLES).sort(), METHODS.map(keyOf).sort());
  });

  describe('takes one round trip to the database', () => {
    /** Answered from what the monitor knows, and asks for by itself. */
    const NONE = new Set(['DatabaseService/GetDatabaseHealth', 'DatabaseService/GetHealthHistory']);
    for (const method of METHODS.filter(({ methodKind }) => methodKind === 'unary')) {
      it(keyOf(method), async () => {
        const { request, options } = await exampleOf(service, method);
        // Readiness and the sweeper ask the database too, each by itself: the quietest of a few calls counts.
        const before = proxy.roundTrips;
        await callOf(service, method)(request, options);
        let trips = proxy.roundTrips - before;
        const due = NONE.has(keyOf(method)) ? 0 : 1;
        for (let attempt = 0; attempt < 10 && trips > due; attempt++) {
          const again = isRead(method) ? { request, options } : await exampleOf(service, method);
          const start = proxy.roundTrips;
          await callOf(service, method)(again.request, again.options);
          trips = Math.min(trips, proxy.roundTrips - start);
        }
        assert.equal(trips, due);
      });
    }
  });
});

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
