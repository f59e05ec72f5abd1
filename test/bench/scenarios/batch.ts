import { allOf, interleave, ratioOf } from '../support/compare.ts';
import { by, ratio, type Scenario } from '../support/scenario.ts';
import { BATCH, createBatch, createOne } from '../support/works.ts';

const LEAST = 10;
const CALLERS = [1, 32];

export const batch: Scenario = {
  name: 'batch',
  about: `rows a second of BatchCreateExecutions(${BATCH}) against single CreateExecution calls`,
  run: async (bench) => {
    const { world } = bench;
    const target = await bench.start({ name: 'service' });
    const works = new Map([createBatch(world.projects), createOne(world.projects)].map((work) => [work.name, work]));
    const [many = '', one = ''] = works.keys();
    const results = [];
    for (const callers of CALLERS) {
      bench.tell(by(many, callers));
      const rounds = await interleave([...works.keys()], bench.rounds, (name) =>
        bench.measure(target, works.get(name) as ReturnType<typeof createOne>, { callers, seconds: bench.seconds }),
      );
      const spread = ratioOf(
        rounds,
        many,
        one,
        ({ work, callsPerSecond }) => callsPerSecond * (work === many ? BATCH : 1),
      );
      const name = `rows a second of ${by(many, callers)}, against ${one}`;
      results.push({ figure: ratio(name, spread, { least: LEAST }), measured: allOf(rounds) });
    }
    return {
      figures: results.map(({ figure }) => figure),
      measured: results.flatMap(({ measured }) => measured),
    };
  },
};
