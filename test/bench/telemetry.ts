// What telemetry costs: the processor's time of a call with telemetry on (to a collector in this process, traces of 10 %,
// metrics and logs) against off, and how long calls take while the collector accepts and never answers, against off. The
// services on one embedded database are called in turn, A B C C B A, call by call, so that what else the machine does meets
// them alike; what it does nevertheless shows between two that both have telemetry off. It ends with 1 unless telemetry costs
// at most 10 % more, and p99 with a silent collector is within 5 %.

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { credentials, Client as GrpcClient } from '@grpc/grpc-js';
import { loadConfig } from '../../src/config.ts';
import { type Provided, provideDatabase } from '../../src/db/provide.ts';
import { DocumentService } from '../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../../src/gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../../src/gen/jeex/persistence/v1/user_service_pb.js';
import { migrate } from '../../src/migrator/migrate.ts';
import { clientOf } from '../support/client.ts';
import { startBlackHole, startCollector } from '../support/otlp.ts';
import { percentile } from '../support/percentile.ts';
import { type Spawned, startService } from '../support/spawned.ts';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    /** Of each service in a round that measures the processor's time, as fast as they are answered. */
    calls: { type: 'string', default: '3000' },
    callers: { type: 'string', default: '8' },
    /** Of each service in a round that measures latency. */
    timed: { type: 'string', default: '1000' },
    /** Calls a second, in such a round, of all services together. */
    rate: { type: 'string', default: '150' },
    json: { type: 'boolean', default: false },
  },
});

const PROJECTS = 16;
const WARM_UP_CALLS = 5_000;
/** Long enough for what is sent by itself to belong to the round that caused it, in milliseconds. */
const SETTLE_MS = 1_500;
const MOST_CPU = 1.1;
const MOST_P99 = 1.05;
const TICKS_PER_SECOND = 100;

const OFF = { OTEL_SDK_DISABLED: 'true' };
const sendingTo = (url: string) => ({
  OTEL_EXPORTER_OTLP_ENDPOINT: url,
  OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
  OTEL_TRACES_SAMPLER_ARG: '0.1',
  OTEL_BSP_SCHEDULE_DELAY: '1000',
  OTEL_METRIC_EXPORT_INTERVAL: '10000',
});

interface Callee {
  readonly pid: number;
  readonly read: (i: number) => Promise<unknown>;
  readonly stop: () => Promise<void>;
}

/** What callers of all services work on. */
interface World {
  readonly actor: string;
  readonly projects: readonly string[];
}

const connect = (address: string) => {
  const channel = new GrpcClient(address, credentials.createInsecure());
  return {
    users: clientOf(UserService, channel),
    projects: clientOf(ProjectService, channel),
    documents: clientOf(DocumentService, channel),
    close: () => channel.close(),
  };
};

const prepare = async ({ grpc }: Spawned): Promise<World> => {
  const { users, projects, documents, close } = connect(grpc);
  const { user } = await users.createUser({ email: 'bench@example.org', name: 'Bench' });
  const actor = user?.id ?? '';
  const ids: string[] = [];
  for (let i = 0; i < PROJECTS; i++) {
    const { project } = await projects.createProject({ name: `Bench ${i}`, language: 'en' }, { actor });
    const projectId = project?.id ?? '';
    await documents.appendVersion({ projectId, documentType: 'idea', content: 'x'.repeat(2_000) }, { actor });
    ids.push(projectId);
  }
  close();
  return { actor, projects: ids };
};

/** Of five calls one appends, and four read. */
const calleeOf = ({ grpc, process: child, stop }: Spawned, { actor, projects: ids }: World): Callee => {
  const { projects, documents, close } = connect(grpc);
  const read = (i: number): Promise<unknown> => {
    const projectId = ids[i % ids.length] ?? '';
    const document = { projectId, documentType: 'idea' };
    if (i % 5 === 4) return documents.appendVersion({ ...document, content: `# ${Math.random()}` }, { actor });
    return i % 2 === 0
      ? projects.getProject({ id: projectId }, { actor })
      : documents.getVersion({ ...document, version: 1 }, { actor });
  };
  const end = async () => {
    close();
    await stop();
  };
  return { pid: child.pid ?? 0, read, stop: end };
};

/** What a process has used of the processors, in seconds. */
const cpuOf = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const [user = 0, system = 0] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13)
    .map(Number);
  return (user + system) / TICKS_PER_SECOND;
};

/** Two services without telemetry, and one with it. */
const KINDS = ['off', 'alsoOff', 'on'] as const;
type Each<T> = Readonly<Record<(typeof KINDS)[number], T>>;
const each = <T>(make: (kind: (typeof KINDS)[number]) => T): Each<T> => ({
  off: make('off'),
  alsoOff: make('alsoOff'),
  on: make('on'),
});

/** A B C C B A; all make the same calls. */
const turnOf = (i: number): (typeof KINDS)[number] => KINDS[Math.min(i % 6, 5 - (i % 6))] ?? 'off';
const callOne = (i: number, callees: Each<Callee>): Promise<unknown> => callees[turnOf(i)].read(Math.trunc(i / 3));

/** Makes so many calls of each as fast as they are answered. */
const callAll = async (callees: Each<Callee>, calls: number): Promise<void> => {
  let next = 0;
  const caller = async () => {
    while (next < KINDS.length * calls) await callOne(next++, callees);
  };
  await Promise.all(Array.from({ length: Number(options.callers) }, caller));
};

/** The processor's time of a call, in microseconds. */
const measureCpu = async (callees: Each<Callee>): Promise<Each<number>> => {
  const calls = Number(options.calls);
  const before = each((kind) => cpuOf(callees[kind].pid));
  await callAll(callees, calls);
  await sleep(SETTLE_MS);
  return each((kind) => ((cpuOf(callees[kind].pid) - before[kind]) / calls) * 1e6);
};

/** The 99th percentiles of what calls take that are sent at a steady rate, in milliseconds. */
const measureP99 = async (callees: Each<Callee>): Promise<Each<number>> => {
  const intervalMs = 1000 / Number(options.rate);
  const took = each((): number[] => []);
  const running: Promise<void>[] = [];
  const began = performance.now();
  for (let i = 0; i < KINDS.length * Number(options.timed); i++) {
    const early = began + i * intervalMs - performance.now();
    if (early > 0) await sleep(early);
    const sent = performance.now();
    running.push(callOne(i, callees).then(() => void took[turnOf(i)].push(performance.now() - sent)));
  }
  await Promise.all(running);
  return each((kind) => percentile(took[kind], 0.99));
};

interface Compared {
  readonly what: string;
  /** Medians of the rounds. */
  readonly off: number;
  readonly on: number;
  /** The median and the quartiles of the rounds' ratios. */
  readonly ratio: number;
  readonly lower: number;
  readonly upper: number;
  /** Null for what only tells how much the ratios say. */
  readonly most: number | null;
}

const summarise = (what: string, pairs: readonly (readonly [off: number, on: number])[], most: number | null) => {
  const ratios = pairs.map(([off, on]) => on / off);
  return {
    what,
    off: percentile(
      pairs.map(([off]) => off),
      0.5,
    ),
    on: percentile(
      pairs.map(([, on]) => on),
      0.5,
    ),
    ratio: percentile(ratios, 0.5),
    lower: percentile(ratios, 0.25),
    upper: percentile(ratios, 0.75),
    most,
  };
};

const compare = async (what: string, most: number, measure: () => Promise<Each<number>>): Promise<Compared[]> => {
  const rounds: Each<number>[] = [];
  for (let i = 1; i <= Number(options.rounds); i++) {
    const found = await measure();
    rounds.push(found);
    const told = KINDS.map((kind) => `${kind} ${found[kind].toFixed(2)}`).join(', ');
    process.stderr.write(`${what}, round ${i}: ${told}\n`);
  }
  return [
    summarise(
      what,
      rounds.map(({ off, alsoOff, on }) => [(off + alsoOff) / 2, on]),
      most,
    ),
    summarise(
      'the same, off against off',
      rounds.map(({ off, alsoOff }) => [off, alsoOff]),
      null,
    ),
  ];
};

const toMarkdown = (rows: readonly Compared[]): string =>
  [
    '| | off | on | ratio (median) | quartiles | at most |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows.map(
      ({ what, off, on, ratio, lower, upper, most }) =>
        `| ${what} | ${off.toFixed(2)} | ${on.toFixed(2)} | ${ratio.toFixed(3)} | ${lower.toFixed(3)} to ${upper.toFixed(3)} | ${most ?? ''} |`,
    ),
  ].join('\n');

const measure = async ({ appUrl, secrets }: Provided, collector: string, hole: string): Promise<Compared[]> => {
  const env = { DATABASE_URL: appUrl, ENCRYPTION_KEYS: secrets?.encryption ?? '', ACCESS_LOG: '/dev/null' };
  await using services = new AsyncDisposableStack();
  const start = async (telemetry: Readonly<Record<string, string>>): Promise<Spawned> => {
    const service = await startService({ ...env, ...telemetry });
    services.defer(service.stop);
    return service;
  };
  const [off, alsoOff] = [await start(OFF), await start(OFF)];
  const [on, silent] = [await start(sendingTo(collector)), await start(sendingTo(hole))];
  const world = await prepare(off);
  const callee = (service: Spawned): Callee => {
    const made = calleeOf(service, world);
    services.defer(made.stop);
    return made;
  };
  const telling = { off: callee(off), alsoOff: callee(alsoOff), on: callee(on) };
  const unheard = { ...telling, on: callee(silent) };
  await callAll(telling, WARM_UP_CALLS);
  await callAll(unheard, WARM_UP_CALLS);
  return [
    ...(await compare('processor, µs a call', MOST_CPU, () => measureCpu(telling))),
    ...(await compare('p99 with a silent collector, ms', MOST_P99, () => measureP99(unheard))),
  ];
};

await using opened = new AsyncDisposableStack();
const collector = await startCollector();
opened.defer(() => collector.stop());
const hole = await startBlackHole();
opened.defer(() => hole.stop());
const database = await provideDatabase(loadConfig({}), { ephemeral: true, log: { info: () => {} } });
opened.defer(() => database.stop());
await migrate(database.migrationUrl, { mode: 'auto', embedded: true });
const rows = await measure(database, collector.url, hole.url);
if (collector.spans.length === 0 || collector.metrics.size === 0) throw new Error('nothing has reached the collector');
process.stdout.write(`${options.json ? JSON.stringify(rows, null, 2) : toMarkdown(rows)}\n`);
if (rows.some(({ ratio, most }) => most !== null && ratio > most)) process.exitCode = 1;
