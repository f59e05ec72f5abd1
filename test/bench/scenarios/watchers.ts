import { setTimeout as sleep } from 'node:timers/promises';
import { allOf, interleave, ratioOf } from '../support/compare.ts';
import { makeProjects } from '../support/projects.ts';
import { type Figure, ratio, type Scenario } from '../support/scenario.ts';
import { latencyOf } from '../support/statistics.ts';
import { openWatchers } from '../support/watchers.ts';
import { append } from '../support/works.ts';

/** Each of a project of its own. */
const WATCHERS = 1_000;
const WRITERS = 8;
const MOST_MS = 100;
const LEAST_RATE = 0.95;
/** How long after the last write its event may come, in milliseconds; bounds the wait. */
const PATIENCE_MS = 5_000;
const POLL_MS = 20;

const WITH = `with ${WATCHERS} watchers`;
const WITHOUT = 'without watchers';

export const watchers: Scenario = {
  name: 'watchers',
  about: `from the commit to the event with ${WATCHERS} watchers, and writes a second with them against without`,
  run: async (bench) => {
    const { world, signal } = bench;
    const projects = await makeProjects(world.database.admin, world.actor, WATCHERS, 1);
    const target = await bench.start({ name: 'service' });
    const work = append(projects);
    const took: number[] = [];
    const size = { callers: WRITERS, seconds: bench.seconds };
    await bench.measure(target, work, size);
    const rounds = await interleave([WITHOUT, WITH], bench.rounds, async (name) => {
      if (name === WITHOUT) return { ...(await bench.measure(target, work, size)), target: name };
      const watching = await openWatchers(target, projects, signal);
      try {
        const measured = await bench.measure(target, work, size);
        took.push(...(await untilAll(watching, measured.calls)));
        return { ...measured, target: name };
      } finally {
        await watching.stop();
      }
    });
    const latency = latencyOf(took);
    const arrival = (name: string, value: number, most: number | null): Figure => ({
      name: `commit to event, ${WATCHERS} watchers, ${name}`,
      value,
      spread: null,
      unit: 'ms',
      bound: most === null ? null : { most },
    });
    const rate = ratioOf(rounds, WITH, WITHOUT, ({ callsPerSecond }) => callsPerSecond);
    return {
      figures: [
        arrival('p99', latency.p99, MOST_MS),
        arrival('p50', latency.p50, null),
        ratio(`writes a second, ${WITH} against ${WITHOUT}`, rate, { least: LEAST_RATE }),
      ],
      measured: allOf(rounds),
    };
  },
};

/** The arrivals of as many changes as were written. @throws Error when some have not arrived in time */
const untilAll = async (watching: Awaited<ReturnType<typeof openWatchers>>, written: number): Promise<number[]> => {
  const took: number[] = [];
  const end = performance.now() + PATIENCE_MS;
  while (took.length < written) {
    if (performance.now() > end) throw new Error(`of ${written} changes ${took.length} have arrived`);
    took.push(...(await watching.arrived()).took);
    await sleep(POLL_MS);
  }
  return took;
};
