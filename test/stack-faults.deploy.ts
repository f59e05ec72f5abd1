import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Health, HealthCheckResponse_ServingStatus } from '../src/gen/grpc/health/v1/health_pb.js';
import { clientOf } from './support/client.ts';
import { docker, must } from './support/docker.ts';
import { acknowledged, failuresOf, type Load, PATIENCE_MS, servedSince, stored, useLoader } from './support/load.ts';
import { type Container, NO_DOCKER, type Stack, useStack } from './support/stack.ts';
import { until } from './support/until.ts';

/** Twice what the pool has: callers queue, as they do when it matters. */
const LOAD = { callers: 40, projects: 5 };
/** How a call without a deadline may fail while a server is away: whoever made it makes it again. */
const RETRYABLE = new Set(['DATABASE_UNAVAILABLE', 'OVERLOADED', 'CONTENTION']);
/** Answers that each caller has in a row once it is served in full. */
const IN_A_ROW = 5;
/** The promise is 2 s, in milliseconds; a machine that does much else is given more, and the figure printed. */
const BACK_MS = 10_000;

/** What each server says when it accepts connections. */
const ACCEPTING = { pgbouncer: 'process up', postgres: 'ready to accept connections' } as const;
type Server = keyof typeof ACCEPTING;

/** When a server last began to accept connections since a moment, both in milliseconds since 1970. */
const accepting = async (stack: Stack, server: Server, moment: number): Promise<number> => {
  const logs = ['logs', '--timestamps', '--since', new Date(moment).toISOString(), await stack.id(server)];
  let last: string | undefined;
  await until(
    async () => {
      const { out, err } = await docker(logs);
      last = `${out}${err}`.split('\n').findLast((line) => line.includes(ACCEPTING[server]));
      return last !== undefined;
    },
    `${server} accepts connections`,
    PATIENCE_MS,
  );
  return Date.parse(last?.split(' ')[0] ?? '');
};

/** What happens to a server. @returns when it accepted connections again, in milliseconds since 1970 */
type Fault = (stack: Stack, load: Load) => Promise<number>;

const commanded =
  (server: Server, ...commands: readonly string[]): Fault =>
  async (stack) => {
    const began = Date.now();
    for (const command of commands) await must([command, await stack.id(server)]);
    return await accepting(stack, server, began);
  };

/** One of PostgreSQL's processes dies: it ends all others, recovers, and goes on. */
const crashed: Fault = async (stack) => {
  const began = Date.now();
  const [row] = await stack.query("select pid from pg_stat_activity where usename = 'jeex_app' limit 1");
  const { code, err } = await stack.exec('postgres', ['bash', '-c', `kill -KILL ${row?.pid}`]);
  assert.equal(code, 0, err);
  return await accepting(stack, 'postgres', began);
};

/** What is connected stays so for all that either side knows, until calls have failed of it. */
const cut: Fault = async (stack, load) => {
  const place = [`${stack.project}_database`, await stack.id('pod')];
  await must(['network', 'disconnect', ...place]);
  await until(() => Object.keys(failuresOf(load)).length > 0, 'calls fail');
  await must(['network', 'connect', ...place]);
  return Date.now();
};

const FAULTS: Readonly<Record<string, Fault>> = {
  'PgBouncer restarted': commanded('pgbouncer', 'restart'),
  'PgBouncer killed and started': commanded('pgbouncer', 'kill', 'start'),
  'PostgreSQL restarted': commanded('postgres', 'restart'),
  'PostgreSQL killed and started': commanded('postgres', 'kill', 'start'),
  'a process of PostgreSQL killed': crashed,
  'the network to PostgreSQL cut': cut,
};

/** What tells a container's run from the next one. */
const runOf = async (stack: Stack, container: Container): Promise<string> =>
  await must(['inspect', '--format', '{{.Id}} {{.RestartCount}} {{.State.StartedAt}}', await stack.id(container)]);

suite('the composed stack under load', { skip: NO_DOCKER }, async () => {
  const stack = await useStack();
  const loader = await useLoader(stack);
  const health = clientOf(Health, loader.channel);
  const isReady = async () =>
    (await health.check({ service: 'readiness' })).status === HealthCheckResponse_ServingStatus.SERVING;

  for (const [name, inflict] of Object.entries(FAULTS)) {
    test(`${name}: calls fail with reasons to repeat them, and full service comes back by itself`, async (t) => {
      const run = await runOf(stack, 'service');
      const load = await loader.start(LOAD);
      assert.deepEqual(failuresOf(load), {});

      const accepts = await inflict(stack, load);
      let served: number | undefined;
      const isServed = () => {
        served = servedSince(load, accepts, IN_A_ROW);
        return served !== undefined;
      };
      await until(isServed, 'every caller is served again', PATIENCE_MS);
      await until(isReady, 'the service is ready again');
      await load.stop();

      const back = (served ?? Number.NaN) - accepts;
      const failures = failuresOf(load);
      t.diagnostic(`full service ${back} ms after connections were accepted; failed: ${JSON.stringify(failures)}`);
      assert.deepEqual(
        Object.keys(failures).filter((reason) => !RETRYABLE.has(reason)),
        [],
      );
      assert.ok(
        load.calls.every(({ failure }) => failure === undefined || failure.retryable),
        'and say when',
      );
      assert.ok(back < BACK_MS);
      assert.equal(await runOf(stack, 'service'), run, 'the service was not restarted');
      const documents = await stored(loader, load);
      assert.deepEqual(documents, acknowledged(load), 'what was acknowledged is there, and nothing else');
      for (const contents of documents) assert.equal(new Set(contents).size, contents.length, 'exactly once');
    });
  }
});
