import type { Fault, World } from './fault.ts';
import { FAULTS } from './faults/index.ts';
import type { Load } from './load.ts';
import type { Options } from './options.ts';
import { type Step, schedule } from './schedule.ts';

/** What came of all the times of a fault. */
export interface Inflicted {
  readonly name: string;
  readonly what: string;
  times: number;
  readonly figures: Record<string, number[]>;
  /** Why it was left out; null when it was not. */
  readonly missing: string | null;
}

export interface Outcome {
  readonly faults: readonly Inflicted[];
  /** Promises that were broken, a line each. */
  readonly broken: readonly string[];
  /** What struck, in this order. */
  readonly order: readonly string[];
}

/** How often a fault strikes in its turn among others. */
const AMONG_OTHERS = 5;
const BACK = 'until all is served again, ms';
const MINUTE_MS = 60_000;

const note = (inflicted: Inflicted, figures: Readonly<Record<string, readonly number[]>>): void => {
  for (const [name, values] of Object.entries(figures)) {
    const kept = inflicted.figures[name] ?? [];
    inflicted.figures[name] = kept;
    kept.push(...values);
  }
};

/** The steps that the options ask for: by the clock, by rounds, or by the times of each. */
function* stepsOf(
  { seed, minutes, rounds, times }: Options,
  faults: readonly Fault[],
  timesOf: (fault: Fault) => number,
): Generator<Step<Fault>> {
  const end = performance.now() + minutes * MINUTE_MS;
  let taken = 0;
  if (faults.length === 0) return;
  // Of all kinds, so that a seed says the same whatever is asked for or left out.
  for (const step of schedule(seed, FAULTS)) {
    if (!faults.includes(step.fault)) continue;
    if (times !== null) {
      if (faults.every((fault) => timesOf(fault) >= times)) return;
      if (timesOf(step.fault) >= times) continue;
    } else if (rounds === null ? performance.now() >= end : taken >= rounds * faults.length) return;
    taken += 1;
    yield step;
  }
}

/** The figures that are more than their limits, a line for each kind. */
const beyond = ({ limits = {} }: Fault, { name, figures }: Inflicted): string[] =>
  Object.entries(limits).flatMap(([figure, limit]) => {
    const values = figures[figure] ?? [];
    const late = values.filter((value) => value > limit);
    return late.length === 0 ? [] : [`${name}: ${figure}: ${late.length} of ${values.length} above ${limit}`];
  });

/** One fault after the other, each when everything is in order. @param say is told what strikes */
export const inflict = async (
  world: World,
  load: Load,
  { options, faults, say }: { options: Options; faults: readonly Fault[]; say: (line: string) => void },
): Promise<Outcome> => {
  const all = faults.map((fault) => {
    const { name, what } = fault;
    return { fault, result: { name, what, times: 0, figures: {}, missing: fault.missing(world) } satisfies Inflicted };
  });
  const results = new Map<Fault, Inflicted>(all.map(({ fault, result }) => [fault, result]));
  const there = all.filter(({ result }) => result.missing === null).map(({ fault }) => fault);
  const broken: string[] = [];
  const order: string[] = [];
  const timesOf = (fault: Fault) => results.get(fault)?.times ?? 0;

  const strike = async ({ fault, random }: Step<Fault>): Promise<void> => {
    const result = results.get(fault) as Inflicted;
    const left = options.times === null ? AMONG_OTHERS : options.times - result.times;
    const most = Math.min(fault.batch, left);
    say(`${fault.name}: ${options.times === null ? 'strikes' : `${result.times} of ${options.times}`}`);
    order.push(fault.name);
    const struck = await fault.strike(world, random, most);
    const began = performance.now();
    await load.served();
    result.times += struck.times;
    note(result, { ...struck.figures, [BACK]: [performance.now() - began] });
    broken.push(...(struck.broken ?? []).map((line) => `${fault.name}: ${line}`));
  };

  for (const step of stepsOf(options, there, timesOf)) {
    try {
      await strike(step);
    } catch (error) {
      world.signal.throwIfAborted();
      broken.push(`${step.fault.name}: ${error instanceof Error ? error.message : error}`);
      break;
    }
  }
  if (options.times !== null) broken.push(...all.flatMap(({ fault, result }) => beyond(fault, result)));
  return { faults: all.map(({ result }) => result), broken, order };
};
