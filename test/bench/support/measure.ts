import { cpuOf, familyCpuOf } from './cpu.ts';
import { walBytes } from './database.ts';
import type { Driver, Load, Request } from './load.ts';
import { type Latency, latencyOf } from './statistics.ts';
import type { Work } from './works.ts';
import { ask, type Target, type World } from './world.ts';

/** Microseconds of the processors that a call has taken, by process. */
export interface CallCpu {
  readonly service: number;
  /** Null where there is none. */
  readonly pgbouncer: number | null;
  readonly postgres: number;
  readonly all: number;
}

/** One run of a load on a target. */
export interface Measured {
  readonly target: string;
  readonly work: string;
  readonly driver: string;
  readonly callers: number;
  /** Calls sent a second; null when each caller waited for its answer. */
  readonly offered: number | null;
  readonly calls: number;
  readonly failed: Readonly<Record<string, number>>;
  readonly callsPerSecond: number;
  /** Milliseconds. */
  readonly latency: Latency;
  readonly cpu: CallCpu;
  /** Of the write-ahead log, per call. */
  readonly walBytes: number;
}

/** How much to measure. */
export interface Size {
  readonly callers: number;
  readonly seconds: number;
  /** Calls a second, whether or not those before are answered. */
  readonly rate?: number;
  /** Whether calls may fail, so many at once that some are refused; then the report tells how many did. */
  readonly mayFail?: boolean;
}

/** Measures loads, one at a time. */
export interface Meter {
  readonly world: World;
  /** @throws Error when an answer has not the size of the sampled one, or a call fails that may not */
  measure(target: Target, work: Work, size: Size): Promise<Measured>;
}

export interface Drivers {
  /** The one for requests that stay as they are. */
  readonly plain: Driver;
  /** The one that changes each request. */
  readonly stamping: Driver;
}

/** What a first run makes to learn how fast a target is, */
const FIRST_CALLS = 400;
/** and what a second one makes to warm its code, as far as it does not take longer. */
const WARM_UP_CALLS = 4_000;
const WARM_UP_SECONDS = 5;
/** Requests that a driver holds in turn: its processes' number. */
const SAMPLED = 16;

export const createMeter = (world: World, drivers: Drivers): Meter => {
  const rates = new Map<string, number>();
  const requests = new Map<string, readonly Request[]>();
  const driverOf = ({ stamp, bodies }: Work) =>
    stamp !== undefined || bodies.length > SAMPLED ? drivers.stamping : drivers.plain;

  const requestsOf = async (target: Target, work: Work): Promise<readonly Request[]> => {
    const known = requests.get(keyOf(target, work)) ?? (await sampled(target, work));
    requests.set(keyOf(target, work), known);
    return known;
  };

  const run = async (target: Target, work: Work, load: Pick<Load, 'callers' | 'calls' | 'rate'>): Promise<Measured> => {
    const driver = driverOf(work);
    const asked = await requestsOf(target, work);
    const { admin, postmaster } = world.database;
    const wal = await walBytes(admin);
    const poolerCpu = () => (target.pooler === undefined ? 0 : cpuOf(target.pooler));
    const before = { service: cpuOf(target.pid), pooler: poolerCpu(), postgres: familyCpuOf(postmaster) };
    const outcome = await driver.run({
      ...load,
      address: target.address,
      headers: target.headers,
      requests: asked,
    });
    const each = (seconds: number) => (seconds * 1e6) / Math.max(1, outcome.answered);
    const service = each(cpuOf(target.pid) - before.service);
    const pooler = each(poolerCpu() - before.pooler);
    const postgres = each(familyCpuOf(postmaster) - before.postgres);
    return {
      target: target.name,
      work: work.name,
      driver: driver.name,
      callers: load.callers,
      offered: load.rate ?? null,
      calls: outcome.answered,
      failed: outcome.failed,
      callsPerSecond: outcome.answered / outcome.seconds,
      latency: latencyOf(outcome.took),
      cpu: {
        service,
        pgbouncer: target.pooler === undefined ? null : pooler,
        postgres,
        all: service + pooler + postgres,
      },
      walBytes: ((await walBytes(admin)) - wal) / Math.max(1, outcome.answered),
    };
  };

  /** How fast a target answers so many callers, known once its code is warm. */
  const rateOf = async (target: Target, work: Work, callers: number): Promise<number> => {
    const key = `${keyOf(target, work)} ${callers}`;
    const known = rates.get(key);
    if (known !== undefined) return known;
    const first = await run(target, work, { callers, calls: Math.max(callers, FIRST_CALLS) });
    const calls = Math.min(WARM_UP_CALLS, Math.ceil(first.callsPerSecond * WARM_UP_SECONDS));
    const { callsPerSecond } = await run(target, work, { callers, calls: Math.max(callers, calls) });
    rates.set(key, callsPerSecond);
    return callsPerSecond;
  };

  return {
    world,
    measure: async (target, work, { callers, seconds, rate, mayFail = false }) => {
      const calls = Math.ceil((rate ?? (await rateOf(target, work, callers))) * seconds);
      const measured = await run(target, work, {
        callers,
        calls: Math.max(callers, calls),
        ...(rate !== undefined && { rate }),
      });
      if (!mayFail && Object.keys(measured.failed).length > 0) {
        throw new Error(`${target.name}, ${work.name}: ${JSON.stringify(measured.failed)}`);
      }
      return measured;
    },
  };
};

const keyOf = (target: Target, work: Work): string => `${target.address} ${work.name} ${work.bodies.length}`;

/** The requests, each with its answer's size; beyond what a driver holds in turn, all are taken for alike. */
export const sampled = async (target: Target, { path, bodies, stamp, completes }: Work): Promise<Request[]> => {
  const sizes: number[] = [];
  for (const body of bodies.slice(0, SAMPLED)) {
    // A write is asked for as it stands, which leaves one of its kind.
    sizes.push((await ask(target, path, body)).byteLength);
  }
  return bodies.map((body, i) => ({
    path,
    body,
    answerBytes: sizes[i % sizes.length] as number,
    ...(stamp !== undefined && { stamp }),
    ...(completes && { completes }),
  }));
};
