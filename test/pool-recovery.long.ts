import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { CallError } from './support/client.ts';
import { useRestartable } from './support/restartable.ts';
import { clientsOn, newProject, type TestService, useService } from './support/service.ts';
import { until } from './support/until.ts';

const CALLERS = 24;
/** Twice what the pool has: callers queue, as they do when it matters. */
const POOL_SIZE = '13';
const RETRYABLE = ['DATABASE_UNAVAILABLE', 'CONTENTION', 'OVERLOADED'];
/** How long, in milliseconds, full service may take once the server accepts connections. */
const BACK_MS = 2_000;

interface Load {
  readonly answered: number;
  /** Why calls failed, and what else they said. */
  readonly failures: readonly string[];
  /** Callers that were answered since they were last forgotten. */
  readonly served: number;
  forgetServed(): void;
  stop(): Promise<void>;
}

/** Callers that read and write, one call after the other, whatever becomes of them. */
const startLoad = async (service: TestService): Promise<Load> => {
  const { projectId } = await newProject(clientsOn(service.channel));
  const failures: string[] = [];
  const served = new Set<number>();
  let answered = 0;
  let going = true;
  const send = (caller: number) =>
    caller % 2 === 0
      ? service.projects.getProject({ id: projectId })
      : service.documents.appendVersion({
          projectId,
          documentType: `type_${caller}`,
          content: randomUUID(),
          requestId: randomUUID(),
        });
  const call = async (caller: number) => {
    while (going) {
      try {
        await send(caller);
        answered += 1;
        served.add(caller);
      } catch (error) {
        failures.push(error instanceof CallError ? `${error.reason || error.code} ${error.message}` : String(error));
      }
    }
  };
  const callers = Array.from({ length: CALLERS }, (_, caller) => call(caller));
  const stop = async () => {
    going = false;
    await Promise.all(callers);
  };
  after(stop);
  return {
    get answered() {
      return answered;
    },
    failures,
    get served() {
      return served.size;
    },
    forgetServed: () => served.clear(),
    stop,
  };
};

describe('a database that goes away under load and comes back', async () => {
  const server = await useRestartable();
  const db = { ...server, name: 'jeex', urlAs: () => server.appUrl, drop: async () => {} };
  const service = await useService({ db, env: { POOL_SIZE } });
  const ready = async () => (await fetch(`http://${service.http}/readyz`)).status === 200;

  for (const mode of ['fast', 'immediate'] as const) {
    it(`(${mode}) fails calls with reasons to repeat them, and is served in full again by itself`, async (t) => {
      const load = await startLoad(service);
      await until(() => load.answered > 10 * CALLERS, 'calls are answered');
      await server.stop(mode);
      await until(() => load.failures.length > 10 * CALLERS, 'calls fail');
      await until(async () => !(await ready()), 'readiness turns');
      await server.start();
      const accepts = performance.now();
      load.forgetServed();
      await until(async () => load.served === CALLERS && (await ready()), 'every caller is served');
      const back = performance.now() - accepts;
      t.diagnostic(`full service ${Math.round(back)} ms after the server accepted connections`);
      const others = load.failures.filter((failure) => !RETRYABLE.includes(failure.split(' ')[0] ?? ''));
      assert.deepEqual(others.slice(0, 3), []);
      assert.ok(back < BACK_MS);
      const failed = load.failures.length;
      const before = load.answered;
      await until(() => load.answered > before + 10 * CALLERS, 'calls are answered');
      await load.stop();
      assert.equal(load.failures.length, failed, 'and nothing fails any more');
    });
  }
});
