import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Client, credentials } from '@grpc/grpc-js';
import type { Round } from './support/health-prober.ts';
import { lockProject } from './support/locks.ts';
import { outcomeOf } from './support/methods.ts';
import { percentile } from './support/percentile.ts';
import { useTestDatabase } from './support/postgres.ts';
import { type Clients, clientsOn, ENCRYPTION_KEY, newProject } from './support/service.ts';
import { spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

const CALLS = 1000;
/** Each has 256 calls at a time. */
const CONNECTIONS = 4;
const POOL = 10;

/** Asks a service for its health until it is stopped. */
const startProbing = ({ grpc, http }: { readonly grpc: string; readonly http: string }) => {
  const rounds: Round[] = [];
  const worker = new Worker(new URL('support/health-prober.ts', import.meta.url), { workerData: { grpc, http } });
  worker.on('message', (round: Round) => void rounds.push(round));
  const exited = once(worker, 'exit');
  after(() => worker.terminate());
  return {
    rounds,
    stop: async () => {
      worker.postMessage('stop');
      await exited;
    },
  };
};

/** Clients on a connection of their own. */
const useConnection = (address: string): Clients => {
  const channel = new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  after(() => channel.close());
  return clientsOn(channel);
};

const slowest = (rounds: readonly Round[]): string =>
  Object.keys(rounds[0]?.took ?? {})
    .map((way) => `${way} ${Math.round(Math.max(...rounds.map(({ took }) => took[way] ?? 0)))} ms`)
    .join(', ')
    .concat(` at most, of ${rounds.length} each`);

it(`health answers while ${CALLS} calls wait for a pool of ${POOL}, and the first call afterwards is as any other`, async (t) => {
  const db = await useTestDatabase();
  const service = await spawnService({
    DATABASE_URL: db.appUrl,
    MONITOR_DATABASE_URL: db.urlAs('monitor'),
    ENCRYPTION_KEYS: ENCRYPTION_KEY,
    // One more is the readiness check's.
    POOL_SIZE: String(POOL + 1),
    POOL_WAIT_MS: '60000',
  });
  const crowd = Array.from({ length: CONNECTIONS }, () => useConnection(service.grpc));
  const [clients] = crowd as [Clients];
  const { projectId, owner: actor } = await newProject(clients);
  const getProject = async (of = clients) => {
    const began = performance.now();
    await of.projects.getProject({ id: projectId }, { actor });
    return performance.now() - began;
  };
  const fromAll = <T>(call: (of: Clients) => Promise<T>): Promise<T[]> =>
    Promise.all(Array.from({ length: CALLS / CONNECTIONS }, () => crowd.map(call)).flat());
  const alone: number[] = [];
  for (let call = 0; call < 50; call += 1) alone.push(await getProject());

  // The first thousand are slower than any later: the process has not seen so many.
  await fromAll(getProject);

  const { rounds, stop } = startProbing(service);
  /** What was asked so far belongs to a phase that is over, once it is so many rounds long. */
  const phase = async (name: string, atLeast = 0): Promise<void> => {
    const begun = told;
    await until(() => rounds.length >= begun + atLeast, 'health answers');
    told = rounds.length;
    t.diagnostic(`${name}: ${slowest(rounds.slice(begun, told))}`);
  };
  let told = 0;
  await phase('before', 50);
  const release = await lockProject(db, projectId);
  const update = { project: { id: projectId, name: 'Crowd' } };
  const answers = fromAll((of) => outcomeOf(of.projects.updateProject(update, { actor })));
  await until(() => (rounds.at(-1)?.waiting ?? 0) >= CALLS - POOL, 'all but a few wait');
  await phase('while the calls arrive', 1);
  await phase('while they wait', 50);
  await release();
  const outcomes = Map.groupBy(await answers, (outcome) => outcome);
  const first = await getProject();
  await phase('while they are answered', 1);
  await phase('afterwards', 50);
  await stop();

  t.diagnostic(`calls: ${[...outcomes].map(([outcome, { length }]) => `${outcome} ${length}`).join(', ')}`);
  t.diagnostic(`the first call afterwards: ${Math.round(first)} ms, before: ${Math.round(percentile(alone, 0.5))} ms`);
  assert.deepEqual(
    rounds.flatMap(({ wrong }) => wrong),
    [],
  );
  assert.ok([...outcomes.keys()].every((outcome) => outcome === 'OK' || outcome === 'CONTENTION'));
  assert.equal(rounds.at(-1)?.waiting, 0);
});
