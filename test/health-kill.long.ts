import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { Health, HealthCheckResponse_ServingStatus as Serving } from '../src/gen/grpc/health/v1/health_pb.js';
import { DatabaseStatus } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { SERVICES } from '../src/service.ts';
import { clientOf } from './support/client.ts';
import { connectAs } from './support/postgres.ts';
import { useRestartable } from './support/restartable.ts';
import { useService } from './support/service.ts';
import { until } from './support/until.ts';

/** How soon everything says so when the database goes, and when it takes connections again, in milliseconds. */
const FOLLOWS_MS = 2_000;
const NAMES = ['', 'readiness', ...SERVICES.map(({ typeName }) => typeName)];

const server = await useRestartable();
const db = { ...server, name: 'jeex', urlAs: () => server.monitorUrl, drop: async () => {} };
const service = await useService({ db });
const { database } = service;
const health = clientOf(Health, service.channel);

/** The last answer of each stream, by what it watches. */
const watching = () => {
  const last = new Map<string, Serving | DatabaseStatus | undefined>();
  const gone = new AbortController();
  const { signal } = gone;
  const follow = async (name: string, answers: AsyncIterable<Serving | DatabaseStatus | undefined>) => {
    for await (const answer of answers) last.set(name, answer);
  };
  const ended = [
    ...[...NAMES, 'liveness'].map((name) => follow(name, statuses(health.watch({ service: name }, { signal })))),
    follow('WatchHealth', databaseStatuses(database.watchHealth({}, { signal }))),
  ].map((stream) => stream.catch((error) => assert.ok(signal.aborted, error)));
  return {
    last,
    end: async () => {
      gone.abort();
      await Promise.all(ended);
    },
  };
};

async function* statuses(answers: ReturnType<typeof health.watch>) {
  for await (const { status } of answers) yield status;
}

async function* databaseStatuses(answers: ReturnType<typeof database.watchHealth>) {
  for await (const answer of answers) yield answer.health?.status;
}

const statusOf = async (name: string) => (await health.check({ service: name })).status;
const readyz = async () => (await fetch(`http://${service.http}/readyz`)).status;

describe('a database that is killed', () => {
  const { last, end } = watching();
  after(end);

  /** Whether every way to ask says the same, each within the time that is left of the one that all of them have. */
  const allSay = async (ready: boolean): Promise<boolean> => {
    const [serving, status] = ready
      ? [Serving.SERVING, DatabaseStatus.HEALTHY]
      : [Serving.NOT_SERVING, DatabaseStatus.UNAVAILABLE];
    const checked = await Promise.all(NAMES.map(statusOf));
    return (
      checked.every((found) => found === serving) &&
      NAMES.every((name) => last.get(name) === serving) &&
      last.get('WatchHealth') === status &&
      (await database.getDatabaseHealth({})).health?.status === status &&
      (await readyz()) === (ready ? 200 : 503)
    );
  };
  const assertLives = async () => {
    assert.deepEqual([last.get('liveness'), await statusOf('liveness')], [Serving.SERVING, Serving.SERVING]);
  };

  it('is told within 2 s on every way to ask, and so is its return; liveness goes on', async (t) => {
    await until(() => allSay(true), 'everything says that it is there');
    for (let time = 1; time <= 3; time += 1) {
      server.kill();
      const killed = performance.now();
      await until(() => allSay(false), 'everything says that it is gone', FOLLOWS_MS);
      t.diagnostic(`told everywhere ${Math.round(performance.now() - killed)} ms after SIGKILL`);
      await assertLives();
      const { health: told } = await database.getDatabaseHealth({});
      assert.deepEqual([told?.postgresVersion, told?.alerts.map(({ name }) => name)], ['', ['database_down']]);
      await server.start();
      await connectAs(server.appUrl);
      const accepts = performance.now();
      await until(() => allSay(true), 'everything says that it is back', FOLLOWS_MS);
      t.diagnostic(`told everywhere ${Math.round(performance.now() - accepts)} ms after it accepted connections`);
      await assertLives();
      assert.notEqual((await database.getDatabaseHealth({})).health?.postgresVersion, '');
    }
  });
});
