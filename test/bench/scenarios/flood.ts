import { failedOf, type Outcome, type Request } from '../support/load.ts';
import { sampled } from '../support/measure.ts';
import { startNodeDriver } from '../support/node-driver.ts';
import { ratio, type Scenario } from '../support/scenario.ts';
import { latencyOf, spreadOf } from '../support/statistics.ts';
import { getSmall } from '../support/works.ts';
import type { Target } from '../support/world.ts';

/** Projects that are called as usual, */
const OTHERS = 10;
/** and how many times as often one more is called: as often as the service can answer. */
const TIMES = 50;
/** Who find out how often that is. */
const CAPACITY_CALLERS = 32;
/** In flight, at most, of the flood and of the others. */
const CALLERS = 800;
const DEADLINE_MS = 2_000;
const MOST = 1.5;

export const flood: Scenario = {
  name: 'flood',
  about: `p95 of the calls for ${OTHERS} projects while another one has ${TIMES} times the load of each, against alone, and elsewhere`,
  run: async (bench) => {
    const { projects } = bench.world;
    const target = await bench.start({ name: 'service' });
    // It shares the machine and the database, and neither the queues nor the event loop.
    const neighbour = await bench.start({ name: 'neighbour' });
    const usual = await sampled(target, getSmall(projects.slice(0, OTHERS)));
    const flooding = await sampled(target, getSmall(projects.slice(OTHERS, OTHERS + 1)));
    const others = await startNodeDriver(bench.signal);
    bench.opened.defer(others.stop);
    const size = { callers: CAPACITY_CALLERS, seconds: bench.seconds };
    const capacity = await bench.measure(target, getSmall(projects), size);
    const each = Math.ceil(capacity.callsPerSecond / TIMES);
    const loadOf = ({ address, headers }: Target, requests: readonly Request[], rate: number) => ({
      ...{ address, headers, requests, rate },
      callers: CALLERS,
      calls: rate * bench.seconds,
      deadlineMs: DEADLINE_MS,
    });
    const calm = (): Promise<Outcome> => others.run(loadOf(target, usual, OTHERS * each));
    const beside = async (flooded: Target): Promise<Outcome> => {
      const [outcome, wild] = await Promise.all([
        calm(),
        bench.drivers.plain.run(loadOf(flooded, flooding, TIMES * each)),
      ]);
      const answered = (wild.answered / wild.seconds).toFixed(0);
      bench.tell(`${flooded.name}: of the flood ${answered} a second were answered; ${JSON.stringify(wild.failed)}`);
      return outcome;
    };
    const ways = { alone: calm, here: () => beside(target), elsewhere: () => beside(neighbour) };
    type Way = keyof typeof ways;
    let refused = 0;
    const p95 = async (way: Way): Promise<number> => {
      const outcome = await ways[way]();
      const latency = latencyOf(outcome.took);
      bench.tell(`${way}: ${JSON.stringify(latency)} ${JSON.stringify(outcome.failed)}`);
      refused += failedOf(outcome);
      return latency.p95;
    };
    const names = Object.keys(ways) as Way[];
    for (const way of names) await ways[way]();
    const rounds: Record<Way, number>[] = [];
    for (let i = 0; i < bench.rounds; i++) {
      const sums = { alone: 0, here: 0, elsewhere: 0 };
      for (const way of [...names, ...names.toReversed()]) sums[way] += await p95(way);
      rounds.push(sums);
    }
    const name = `p95 of ${OTHERS} projects with ${each} calls a second each, while one has ${TIMES * each}, against`;
    const bound = { most: MOST };
    return {
      figures: [
        ratio(`${name} alone`, spreadOf(rounds.map(({ here, alone }) => here / alone)), bound),
        ratio(
          `${name} while that one calls another replica of this machine`,
          spreadOf(rounds.map(({ here, elsewhere }) => here / elsewhere)),
          bound,
        ),
        {
          name: 'calls of the others that were refused',
          value: refused,
          spread: null,
          unit: 'calls',
          bound: { most: 0 },
        },
      ],
      measured: [capacity],
    };
  },
};
