import { allOf, compareTargets, cpuRatioOf } from '../support/compare.ts';
import type { Measured } from '../support/measure.ts';
import { by, type Figure, ratio, type Scenario } from '../support/scenario.ts';
import { getSmall } from '../support/works.ts';

const ON = 'service';
const OFF = 'service without authentication and audit';
const MOST = 1.2;
const CALLERS = [32, 1];

export const audited: Scenario = {
  name: 'audited',
  about: 'CPU of a GetVersion with authentication and every call on record, against neither',
  run: async (bench) => {
    const targets = [await bench.start({ name: ON }), await bench.start({ name: OFF, open: true })];
    const work = getSmall(bench.world.projects);
    const figures: Figure[] = [];
    const measured: Measured[] = [];
    for (const callers of CALLERS) {
      const rounds = await compareTargets(bench, targets, work, callers);
      const name = `CPU of ${by(work.name, callers)}: with authentication and audit against neither`;
      figures.push(ratio(name, cpuRatioOf(rounds, ON, OFF), { most: MOST }));
      measured.push(...allOf(rounds));
    }
    return { figures, measured };
  },
};
