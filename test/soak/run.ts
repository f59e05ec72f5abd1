import type { World } from './fault.ts';
import { FAULTS } from './faults/index.ts';
import { inflict, type Outcome } from './inflict.ts';
import { startLoad } from './load.ts';
import { watchMemory } from './memory.ts';
import type { Options } from './options.ts';
import type { Report } from './report.ts';
import { leaksOf, lookAtRest, type Rest } from './rest.ts';
import { newScratch } from './scratch.ts';
import { openWorld } from './world.ts';

/** The load before the first look at what is held, so that everything that stays has been opened. */
const WARM_UP = { callers: 8, projects: 2, watchers: 2, rate: 0 };
const WARM_UP_ROUNDS = 20;
/** How long a service may take to let go of everything, in milliseconds. */
const REST_MS = 60_000;
/** What faults may take at most: each time, and besides, in milliseconds. */
const TIME_MS = 30_000;
const BESIDES_MS = 1_200_000;

/** What is held once calls have ended: when nothing is any more, else after a minute. */
const comeToRest = async (world: World, before: Rest | null): Promise<Rest> => {
  let rest = await lookAtRest(world);
  const isAtRest = async (): Promise<boolean> => {
    rest = await lookAtRest(world);
    return leaksOf(before ?? rest, rest).length === 0;
  };
  await world.until(isAtRest, 'everything is at rest', REST_MS).catch(() => world.signal.throwIfAborted());
  return rest;
};

const warmUp = async (world: World, seed: number): Promise<Rest> => {
  const load = await startLoad(world, { ...WARM_UP, seed });
  for (let round = 0; round < WARM_UP_ROUNDS; round += 1) await load.served();
  await load.stop();
  // The faults' own channel is opened too.
  await newScratch(world);
  return await comeToRest(world, null);
};

/** How long a run may take at most, in milliseconds. */
const limitOf = ({ minutes, rounds, times, only }: Options): number => {
  const strikes = only.length * (times ?? rounds ?? 0);
  return BESIDES_MS + (strikes > 0 ? strikes * TIME_MS : minutes * 60_000);
};

/** Runs a soak. @throws Error when it cannot be started, or takes too long @param say is told how it goes */
export const soak = async (
  options: Options,
  { signal: interrupted, say }: { signal: AbortSignal; say: (line: string) => void },
): Promise<Report> => {
  const { seed, only } = options;
  const signal = AbortSignal.any([interrupted, AbortSignal.timeout(limitOf(options))]);
  await using opened = new AsyncDisposableStack();
  const began = new Date();
  const world = await openWorld(opened, options, { signal, say });
  say('warming up');
  const before = await warmUp(world, seed);
  const memory = opened.use(watchMemory(world.replicas));
  const load = await startLoad(world, options);
  await load.served();
  const faults = FAULTS.filter(({ name }) => only.includes(name));
  const outcome: Outcome = await inflict(world, load, { options, faults, say });
  say('the faults are over: the ledger is checked');
  const verdict = await load.stop();
  const after = await comeToRest(world, before);
  return {
    options,
    began: began.toISOString(),
    minutes: (Date.now() - began.getTime()) / 60_000,
    through: typeof world.pooler === 'string' ? `direct connections: ${world.pooler}` : 'through PgBouncer',
    disks: typeof world.disks === 'string' ? `in a folder (${world.disks})` : 'on file systems of its own',
    outcome,
    verdict,
    rest: { before, after, leaks: leaksOf(before, after) },
    memory: memory.report(),
    errors: Object.fromEntries(world.replicas.map(({ name, errors }) => [name, errors])),
  };
};
