import { failedOf, type Outcome, type Request } from '../support/load.ts';
import { sampled } from '../support/measure.ts';
import { startNodeDriver } from '../support/node-driver.ts';
import { ratio, type Scenario } from '../support/scenario.ts';
import { latencyOf, spreadOf } from '../support/statistics.ts';
import { getSmall } from '../support/works.ts';

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
  about: `p95 of the calls for ${OTHERS} projects while another one has ${TIMES} times the load of each, against alone`,
  run: async (bench) => {
    const { projects } = bench.world;
    const target = await bench.start({ name: 'service' });
    const { address, headers } = target;
    const usual = await sampled(target, getSmall(projects.slice(0, OTHERS)));
    const flooding = await sampled(target, getSmall(projects.slice(OTHERS, OTHERS + 1)));
    const others = await startNodeDriver(bench.signal);
    bench.opened.defer(others.stop);
    const size = { callers: CAPACITY_CALLERS, seconds: bench.seconds };
    const capacity = await bench.measure(target, getSmall(projects), size);
    const each = Math.ceil(capacity.callsPerSecond / TIMES);
    const loadOf = (requests: readonly Request[], rate: number) => ({
      ...{ address, headers, requests, rate },
      callers: CALLERS,
      calls: rate * bench.seconds,
      deadlineMs: DEADLINE_MS,
    });
    const alone = (): Promise<Outcome> => others.run(loadOf(usual, OTHERS * each));
    const together = async (): Promise<Outcome> => {
      const [calm, wild] = await Promise.all([alone(), bench.drivers.plain.run(loadOf(flooding, TIMES * each))]);
      const answered = (wild.answered / wild.seconds).toFixed(0);
      bench.tell(
        `of the flood's ${TIMES * each} calls a second ${answered} were answered; ${JSON.stringify(wild.failed)}`,
      );
      return calm;
    };
    let refused = 0;
    const p95 = async (run: () => Promise<Outcome>): Promise<number> => {
      const outcome = await run();
      const latency = latencyOf(outcome.took);
      bench.tell(`${run.name}: ${JSON.stringify(latency)} ${JSON.stringify(outcome.failed)}`);
      refused += failedOf(outcome);
      return latency.p95;
    };
    await alone();
    await together();
    const ratios: number[] = [];
    for (let i = 0; i < bench.rounds; i++) {
      const before = await p95(alone);
      const during = (await p95(together)) + (await p95(together));
      ratios.push(during / (before + (await p95(alone))));
    }
    const name = `p95 of ${OTHERS} projects with ${each} calls a second each, while one has ${TIMES * each}, against alone`;
    return {
      figures: [
        ratio(name, spreadOf(ratios), { most: MOST }),
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
