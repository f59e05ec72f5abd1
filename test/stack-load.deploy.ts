import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { Code } from '../src/rpc/errors.ts';
import { CallError } from './support/client.ts';
import { must, output, ROOT } from './support/docker.ts';
import { acknowledged, DOCUMENT, failuresOf, PATIENCE_MS, servedSince, stored, useLoader } from './support/load.ts';
import { NO_DOCKER, type Stack, useStack } from './support/stack.ts';
import { until } from './support/until.ts';

const CALLERS = 200;
const PROJECTS = 8;
/** The service's connections, and what PgBouncer may open for it: its pool and its reserve. */
const POOL_SIZE = 20;
const MOST_SERVERS = 25;
/** Those that writes may have of them. */
const WRITERS = 15;
/** Answers of each caller, and looks at PgBouncer, that show how it is under load. */
const ANSWERS = 5;
const SAMPLES = 10;

/** A service of four connections for calls, which wait a second for them. */
const FULL = ['--file', join(ROOT, 'test/support/compose.full.yaml')];
const FULL_SIZE = 4;
/** Those that writes may have of them. */
const WRITING = 3;
const WAIT_MS = 1000;
const TIMER_SLACK_MS = 20;

/** A service that ends, or has ended, is UNAVAILABLE; before, it may be that its connections are all in use. */
const RETRYABLE: ReadonlySet<number> = new Set([Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED]);

/** PgBouncer's connections for the service: from it, and to PostgreSQL, whatever state they are in. */
const connections = async (stack: Stack): Promise<{ clients: number; servers: number }> => {
  const pool = (await stack.console('show pools')).find(({ user }) => user === 'jeex_app') ?? {};
  const sum = (names: RegExp) =>
    Object.entries(pool).reduce((total, [name, value]) => total + (names.test(name) ? Number(value) : 0), 0);
  return { clients: sum(/^cl_(?:active|waiting)$/), servers: sum(/^sv_/) };
};

/** Holds a project's row in a session of its own. @returns what ends that session */
const hold = async (stack: Stack, projectId: string): Promise<() => Promise<void>> => {
  const psql = ['psql', '--no-psqlrc', '--quiet', '--tuples-only', '--dbname=jeex'];
  const session = spawn('docker', ['exec', '--interactive', await stack.id('postgres'), ...psql]);
  session.stdin.write(`begin; select 'held' from jeex.projects where id = '${projectId}' for update;\n`);
  const [said] = await once(session.stdout, 'data');
  assert.match(String(said), /held/);
  return async () => {
    session.stdin.end();
    await once(session, 'exit');
  };
};

/** How a call that has to fail fails, and after how many milliseconds. */
const failure = async (call: Promise<unknown>): Promise<CallError & { took: number }> => {
  const began = performance.now();
  const error = await call.then(
    () => assert.fail('the call was answered'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof CallError, String(error));
  return Object.assign(error, { took: performance.now() - began });
};

suite('the composed stack under load', { skip: NO_DOCKER }, async () => {
  const stack = await useStack();
  const loader = await useLoader(stack);
  const { clients } = loader;
  const state = async () => {
    const pool = (await clients.database.getDatabaseHealth()).health?.servicePool;
    assert.ok(pool);
    const { seconds = 0n, nanos = 0 } = pool.acquisitionWait ?? {};
    return { ...pool, waitedMs: Number(seconds) * 1000 + nanos / 1e6 };
  };

  test(`${CALLERS} callers share the service's connections, PgBouncer opens its own number, and every call is answered`, async (t) => {
    const load = await loader.start({ callers: CALLERS, projects: PROJECTS });
    const began = Date.now();
    const before = await state();
    const samples: Awaited<ReturnType<typeof connections>>[] = [];
    const isSeen = async () => {
      samples.push(await connections(stack));
      return samples.length >= SAMPLES && servedSince(load, began, ANSWERS) !== undefined;
    };
    await until(isSeen, 'every caller was served for a while', PATIENCE_MS);
    const took = Date.now() - began;
    const answered = load.calls.filter(({ ended }) => ended >= began).length;
    const now = await state();
    await load.stop();

    const wait = (now.waitedMs - before.waitedMs) / Number(now.acquisitions - before.acquisitions);
    const { clients: mostClients, servers: mostServers } = samples.reduce((most, sample) => ({
      clients: Math.max(most.clients, sample.clients),
      servers: Math.max(most.servers, sample.servers),
    }));
    t.diagnostic(
      `${Math.round((answered * 1000) / took)} calls/s; waited for a connection ${wait.toFixed(1)} ms on average; ` +
        `at most ${mostClients} client and ${mostServers} server connections in ${samples.length} samples; ` +
        `told to come again: ${JSON.stringify(failuresOf(load))}`,
    );
    // What a slow machine cannot do in time is refused at once, and sent again.
    assert.deepEqual(
      Object.keys(failuresOf(load)).filter((reason) => reason !== 'OVERLOADED'),
      [],
    );
    assert.ok(mostClients <= POOL_SIZE, 'no more than the service has');
    assert.ok(mostClients >= WRITERS, 'those that writes may have are all in use');
    assert.ok(mostServers <= MOST_SERVERS);
    assert.ok(now.acquisitions > before.acquisitions && wait > 0, 'the waits are exported');
    assert.deepEqual(await stored(loader, load), acknowledged(load));
  });

  test('SIGTERM: calls under way are answered, the rest is told to come again, and the next start serves them', async () => {
    const load = await loader.start({ callers: 2 * POOL_SIZE, projects: PROJECTS });
    output(await stack.compose('stop', 'service'));
    const ended = await must([
      'inspect',
      '--format',
      '{{.State.ExitCode}} {{.State.OOMKilled}}',
      await stack.id('service'),
    ]);
    assert.equal(ended.trim(), '0 false');
    const began = Date.now();
    output(await stack.compose('up', '--detach', '--wait', '--no-deps', '--no-build', 'service'));
    await until(() => servedSince(load, began, 1) !== undefined, 'every caller is served again', PATIENCE_MS);
    await load.stop();
    const others = load.calls.flatMap(({ failure }) => (failure && !RETRYABLE.has(failure.code) ? [failure] : []));
    assert.deepEqual(others.slice(0, 3), [], `failed: ${JSON.stringify(failuresOf(load))}`);
    assert.deepEqual(await stored(loader, load), acknowledged(load));
  });

  test('when every connection that writes may have is in use, they wait, then are OVERLOADED and told when to come again, and reads go on', async (t) => {
    output(await stack.compose(...FULL, 'up', '--detach', '--wait', '--no-deps', '--no-build', 'service'));
    const held = await loader.newDocument();
    const other = await loader.newDocument();
    const append = () =>
      clients.documents.appendVersion({ projectId: held.projectId, documentType: DOCUMENT }, { actor: held.owner });
    const write = () =>
      clients.documents.appendVersion({ projectId: other.projectId, documentType: DOCUMENT }, { actor: other.owner });
    const read = () =>
      clients.documents.getVersion({ projectId: other.projectId, documentType: DOCUMENT }, { actor: other.owner });
    assert.equal((await state()).limit, BigInt(FULL_SIZE));

    const release = await hold(stack, held.projectId);
    const writers = Array.from({ length: WRITING }, append);
    // One after the other, since the first may still find a connection.
    await until(
      () =>
        write().then(
          () => false,
          () => true,
        ),
      'every connection that writes may have is in use',
    );
    const refused = await Promise.all(Array.from({ length: 3 * FULL_SIZE }, () => failure(write())));
    await read();
    const waiting = Array.from({ length: 3 * FULL_SIZE }, write);
    await release();
    await Promise.all([...waiting, ...writers]);

    for (const { code, reason, retryable, took } of refused) {
      assert.deepEqual(
        { code, reason, retryable },
        { code: Code.RESOURCE_EXHAUSTED, reason: 'OVERLOADED', retryable: true },
      );
      assert.ok(took >= WAIT_MS - TIMER_SLACK_MS, `it waited ${took} ms`);
    }
    const { acquisitionTimeouts, waitedMs } = await state();
    t.diagnostic(`refused after ${refused.map(({ took }) => Math.round(took)).join(', ')} ms`);
    assert.ok(acquisitionTimeouts > refused.length);
    assert.ok(waitedMs > 0);
  });
});
