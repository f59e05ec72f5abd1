import type { Measured } from '../support/measure.ts';
import type { Scenario } from '../support/scenario.ts';
import { append, createAndComplete, createBatch, getLarge, getProject, getSmall, listFifty } from '../support/works.ts';

const WORKS = [getSmall, getLarge, getProject, listFifty, append, createAndComplete, createBatch];
const CALLERS = [1, 4, 32, 256];

export const work: Scenario = {
  name: 'work',
  about: 'for information: each kind of call by 1, 4, 32 and 256 callers',
  run: async (bench) => {
    const target = await bench.start({ name: 'service' });
    const measured: Measured[] = [];
    for (const make of WORKS) {
      const own = make(bench.world.projects);
      bench.tell(own.name);
      for (const callers of CALLERS)
        measured.push(await bench.measure(target, own, { callers, seconds: bench.seconds, mayFail: true }));
    }
    return { figures: [], measured };
  },
};
