// How long calls wait for a connection to the database (PERF-002), by the figures that the service itself exports.
// This process is the callers; the service is another one, of its own or one that runs already (--address). Callers that
// send as fast as they are answered show the limit; then the most callers share half of the highest rate: normal load.

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client } from '@grpc/grpc-js';
import { channelCredentials } from '../../src/commands/channel.ts';
import { startTemporaryService } from '../../src/demo/service.ts';
import { DatabaseService, type ServicePool } from '../../src/gen/jeex/persistence/v1/database_service_pb.js';
import { DocumentService } from '../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../../src/gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../../src/gen/jeex/persistence/v1/user_service_pb.js';
import { CallError, clientOf } from '../support/client.ts';
import { percentile } from '../support/percentile.ts';

const { values: options } = parseArgs({
  options: {
    address: { type: 'string' },
    ca: { type: 'string' },
    token: { type: 'string', default: process.env.TOKEN },
    callers: { type: 'string', default: '1,4,32,200' },
    seconds: { type: 'string', default: '5' },
    'pool-size': { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});

const PROJECTS = 32;
const WARM_UP_MS = 1_000;
/** How often the service is asked for its figures, in milliseconds; what it tells is summed up, so only means are known. */
const SAMPLE_MS = 250;
const MIXES = {
  reads: ['GetProject', 'GetVersion'],
  mixed: ['GetProject', 'GetVersion', 'GetProject', 'GetVersion', 'AppendVersion'],
} as const;
type Mix = keyof typeof MIXES;

interface Round {
  readonly mix: Mix;
  readonly callers: number;
  /** How many calls were offered a second; null: each caller sends as soon as it is answered. */
  readonly offered: number | null;
  readonly callsPerSecond: number;
  readonly meanWaitMs: number;
  /** Of the means of 250 ms each. */
  readonly p95WaitMs: number;
  readonly connects: number;
  readonly failedConnects: number;
  readonly acquisitionTimeouts: number;
  /** By reason. */
  readonly failedCalls: Readonly<Record<string, number>>;
}

/** What a pool had done until a moment. */
interface Figures {
  readonly acquisitions: number;
  readonly waitMs: number;
  readonly timeouts: number;
  readonly connects: number;
  readonly failedConnects: number;
}

const figuresOf = (pool: ServicePool | undefined): Figures => ({
  acquisitions: Number(pool?.acquisitions),
  waitMs: Number(pool?.acquisitionWait?.seconds) * 1e3 + Number(pool?.acquisitionWait?.nanos) / 1e6,
  timeouts: Number(pool?.acquisitionTimeouts),
  connects: Number(pool?.connects),
  failedConnects: Number(pool?.failedConnects),
});

const meanWait = (from: Figures, to: Figures): number =>
  (to.waitMs - from.waitMs) / Math.max(1, to.acquisitions - from.acquisitions);

const connect = (address: string) => {
  const channel = new Client(address, channelCredentials(options.ca === undefined ? {} : { ca: options.ca }));
  const headers: Record<string, string> = options.token ? { authorization: `Bearer ${options.token}` } : {};
  return {
    headers,
    users: clientOf(UserService, channel),
    projects: clientOf(ProjectService, channel),
    documents: clientOf(DocumentService, channel),
    database: clientOf(DatabaseService, channel),
    close: () => channel.close(),
  };
};
type Callee = ReturnType<typeof connect>;

/** Projects with a document each, and the calls on them. */
const prepare = async ({ users, projects, documents, headers }: Callee) => {
  const email = `bench-${process.pid}-${Date.now()}@example.org`;
  const { user } = await users.createUser({ email, name: 'Bench' }, { headers });
  const as = { headers, actor: user?.id };
  const ids: string[] = [];
  for (let i = 0; i < PROJECTS; i++) {
    const { project } = await projects.createProject({ name: `Bench ${i}`, language: 'en' }, as);
    const projectId = project?.id ?? '';
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'x'.repeat(2_000) }, as);
    ids.push(projectId);
  }
  const calls = {
    GetProject: (id: string) => projects.getProject({ id }, as),
    GetVersion: (projectId: string) => documents.getVersion({ projectId, documentType: 'idea', version: 1 }, as),
    AppendVersion: (projectId: string) =>
      documents.appendVersion({ projectId, documentType: 'idea', content: `# ${Math.random()}` }, as),
  };
  const remove = async () => {
    for (const id of ids) await projects.deleteProject({ id }, as);
    await users.deleteUser({ id: user?.id ?? '' }, { headers });
  };
  return { calls, ids, remove };
};
type World = Awaited<ReturnType<typeof prepare>>;

/** Callers that send one call after the other, at a rate for all of them together, until they are stopped. */
const startCallers = (count: number, mix: Mix, offered: number | null, { calls, ids }: World) => {
  const intervalMs = offered === null ? 0 : (count / offered) * 1000;
  const began = performance.now();
  const failed: Record<string, number> = {};
  let answered = 0;
  let going = true;
  const call = async (caller: number) => {
    const kinds = MIXES[mix];
    for (let i = caller; going; i++) {
      const early = began + (i - caller + caller / count) * intervalMs - performance.now();
      if (early > 0) await sleep(early);
      try {
        await calls[kinds[i % kinds.length] ?? 'GetProject'](ids[i % ids.length] ?? '');
        answered += 1;
      } catch (error) {
        const reason = error instanceof CallError ? error.reason || `code ${error.code}` : String(error);
        failed[reason] = (failed[reason] ?? 0) + 1;
      }
    }
  };
  const callers = Array.from({ length: count }, (_, caller) => call(caller));
  return {
    failed,
    answered: () => answered,
    stop: async () => {
      going = false;
      await Promise.all(callers);
    },
  };
};

interface Load {
  readonly mix: Mix;
  readonly callers: number;
  readonly offered: number | null;
}

const measure = async (callee: Callee, world: World, { mix, callers, offered }: Load): Promise<Round> => {
  const figures = async () => {
    const { health } = await callee.database.getDatabaseHealth({}, { headers: callee.headers });
    return figuresOf(health?.servicePool);
  };
  const before = await figures();
  const load = startCallers(callers, mix, offered, world);
  await sleep(WARM_UP_MS);
  const [first, answeredBefore, began] = [await figures(), load.answered(), performance.now()];
  const means: number[] = [];
  let last = first;
  while (performance.now() - began < Number(options.seconds) * 1000) {
    await sleep(SAMPLE_MS);
    const now = await figures();
    means.push(meanWait(last, now));
    last = now;
  }
  const seconds = (performance.now() - began) / 1000;
  const answered = load.answered() - answeredBefore;
  await load.stop();
  return {
    mix,
    callers,
    offered,
    callsPerSecond: Math.round(answered / seconds),
    meanWaitMs: meanWait(first, last),
    p95WaitMs: percentile(means, 0.95),
    connects: last.connects - before.connects,
    failedConnects: last.failedConnects - before.failedConnects,
    acquisitionTimeouts: last.timeouts - before.timeouts,
    failedCalls: load.failed,
  };
};

const COLUMNS = [
  'mix',
  'callers',
  'offered/s',
  'calls/s',
  'mean wait, ms',
  'p95 wait, ms',
  'connects',
  'failed connects',
  'failed calls',
];

const rowOf = (round: Round): string[] => [
  round.mix,
  String(round.callers),
  round.offered === null ? 'all they can' : String(round.offered),
  String(round.callsPerSecond),
  round.meanWaitMs.toFixed(2),
  round.p95WaitMs.toFixed(2),
  String(round.connects),
  `${((100 * round.failedConnects) / Math.max(1, round.connects)).toFixed(1)} %`,
  Object.entries(round.failedCalls)
    .map(([reason, count]) => `${reason} ${count}`)
    .join(', ') || '0',
];

const toMarkdown = (rounds: readonly Round[]): string =>
  [COLUMNS, COLUMNS.map(() => '---'), ...rounds.map(rowOf)].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

/** A mix by each number of callers as fast as they can, then by the most of them at half of the highest rate. */
const measureMix = async (callee: Callee, world: World, mix: Mix): Promise<Round[]> => {
  const rounds: Round[] = [];
  const numbers = options.callers.split(',').map(Number);
  for (const callers of numbers) rounds.push(await measure(callee, world, { mix, callers, offered: null }));
  const offered = Math.round(Math.max(...rounds.map(({ callsPerSecond }) => callsPerSecond)) / 2);
  return [...rounds, await measure(callee, world, { mix, callers: Math.max(...numbers), offered })];
};

const service = options.address === undefined ? await startTemporaryService({ POOL_SIZE: options['pool-size'] }) : null;
try {
  const callee = connect(service?.address ?? options.address ?? '');
  const world = await prepare(callee);
  const rounds: Round[] = [];
  try {
    for (const mix of Object.keys(MIXES) as Mix[]) rounds.push(...(await measureMix(callee, world, mix)));
  } finally {
    await world.remove();
    callee.close();
  }
  process.stdout.write(`${options.json ? JSON.stringify(rounds, null, 2) : toMarkdown(rounds)}\n`);
} finally {
  await service?.stop();
}
