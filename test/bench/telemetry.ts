// What telemetry costs: the processor's time of a call with telemetry on (to a collector in this process, traces of 10 %,
// metrics and logs) against off, and how long calls take while the collector accepts and never answers, against off. Three
// services on one embedded database take turns, A B B A, in one run, so that what else the machine does meets all of them
// alike: turns of many calls for the processor's time, single calls for the latency. It ends with 1 unless telemetry costs at
// most 10 % more, and p99 with a silent collector is within 5 %.

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
    rounds: { type: 'string', default: '8' },
    /** Of a turn that measures the processor's time, as fast as they are answered. */
    calls: { type: 'string', default: '3000' },
    callers: { type: 'string', default: '8' },
    /** Of a round that measures latency. */
    seconds: { type: 'string', default: '20' },
    /** Calls a second, in such a round, of both services together. */
    rate: { type: 'string', default: '200' },
    json: { type: 'boolean', default: false },
  },
});

const PROJECTS = 16;
const WARM_UP_CALLS = 6_000;
/** Long enough for what is sent by itself to belong to the turn that caused it, in milliseconds. */
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

/** Calls as fast as they are answered. */
const call = async ({ read }: Callee, calls: number): Promise<void> => {
  let next = 0;
  const caller = async () => {
    while (next < calls) await read(next++);
  };
  await Promise.all(Array.from({ length: Number(options.callers) }, caller));
};

/** The processor's time of a call, in microseconds. */
const measureCpu = async (callee: Callee): Promise<number> => {
  const calls = Number(options.calls);
  const before = cpuOf(callee.pid);
  await call(callee, calls);
  await sleep(SETTLE_MS);
  return ((cpuOf(callee.pid) - before) / calls) * 1e6;
};

/** Two figures that were measured side by side. */
interface Pair {
  readonly off: number;
  readonly on: number;
}

/** A B B A: two pairs, between which a machine that slows down or speeds up is even. */
const compareCpu = async (off: Callee, on: Callee): Promise<Pair[]> => {
  const [a, b, c, d] = [await measureCpu(off), await measureCpu(on), await measureCpu(on), await measureCpu(off)];
  return [
    { off: a, on: b },
    { off: d, on: c },
  ];
};

/** The 99th percentiles of what calls take, in milliseconds, that are sent at a steady rate to one service and the other. */
const compareP99 = async (off: Callee, on: Callee): Promise<Pair[]> => {
  const intervalMs = 1000 / Number(options.rate);
  const took = { off: [] as number[], on: [] as number[] };
  const running: Promise<void>[] = [];
  const began = performance.now();
  const count = Number(options.rate) * Number(options.seconds);
  for (let i = 0; i < count; i++) {
    const early = began + i * intervalMs - performance.now();
    if (early > 0) await sleep(early);
    const which = i % 4 === 0 || i % 4 === 3 ? 'off' : 'on';
    const callee = which === 'off' ? off : on;
    const sent = performance.now();
    // Both make the same calls.
    running.push(callee.read(i >> 1).then(() => void took[which].push(performance.now() - sent)));
  }
  await Promise.all(running);
  return [{ off: percentile(took.off, 0.99), on: percentile(took.on, 0.99) }];
};

interface Compared extends Pair {
  readonly what: string;
  /** The median and the quartiles of the pairs' ratios. */
  readonly ratio: number;
  readonly lower: number;
  readonly upper: number;
  readonly most: number;
}

const summarise = (what: string, pairs: readonly Pair[], most: number): Compared => {
  const ratios = pairs.map(({ off, on }) => on / off);
  const median = (numbers: readonly number[]) =>
    (percentile(numbers, 0.5) -
      percentile(
        numbers.map((number) => -number),
        0.5,
      )) /
    2;
  return {
    what,
    off: median(pairs.map(({ off }) => off)),
    on: median(pairs.map(({ on }) => on)),
    ratio: median(ratios),
    lower: percentile(ratios, 0.25),
    upper: percentile(ratios, 0.75),
    most,
  };
};

/** Rounds of pairs. */
const repeat = async (what: string, round: () => Promise<Pair[]>): Promise<Pair[]> => {
  const pairs: Pair[] = [];
  for (let i = 1; i <= Number(options.rounds); i++) {
    const found = await round();
    pairs.push(...found);
    const told = found.map(({ off, on }) => `off ${off.toFixed(2)}, on ${on.toFixed(2)}`).join('; ');
    process.stderr.write(`${what}, round ${i}: ${told}\n`);
  }
  return pairs;
};

const toMarkdown = (rows: readonly Compared[]): string =>
  [
    '| | off | on | ratio (median) | quartiles | at most |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows.map(
      ({ what, off, on, ratio, lower, upper, most }) =>
        `| ${what} | ${off.toFixed(2)} | ${on.toFixed(2)} | ${ratio.toFixed(3)} | ${lower.toFixed(3)} to ${upper.toFixed(3)} | ${most} |`,
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
  const spawned = [await start(OFF), await start(sendingTo(collector)), await start(sendingTo(hole))] as const;
  const world = await prepare(spawned[0]);
  const [off, on, silent] = [calleeOf(spawned[0], world), calleeOf(spawned[1], world), calleeOf(spawned[2], world)];
  for (const callee of [off, on, silent]) {
    services.defer(callee.stop);
    await call(callee, WARM_UP_CALLS);
  }
  const [cpu, p99] = ['processor, µs a call', 'p99 with a silent collector, ms'];
  return [
    summarise(cpu, await repeat(cpu, () => compareCpu(off, on)), MOST_CPU),
    summarise(p99, await repeat(p99, () => compareP99(off, silent)), MOST_P99),
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
if (rows.some(({ ratio, most }) => ratio > most)) process.exitCode = 1;
