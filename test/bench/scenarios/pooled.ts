import { allOf, compareTargets, cpuRatioOf } from '../support/compare.ts';
import type { Measured } from '../support/measure.ts';
import { noPooler, startPooler } from '../support/pgbouncer.ts';
import { by, type Figure, ratio, type Scenario } from '../support/scenario.ts';
import { append, getSmall } from '../support/works.ts';
import type { Target } from '../support/world.ts';

const DIRECT = 'service';
const POOLED = 'service through PgBouncer';
const CALLERS = [1, 32];

export const pooled: Scenario = {
  name: 'pooled',
  about: 'for information: CPU through PgBouncer, its own included, against a direct connection; needs Docker',
  run: async (bench) => {
    const missing = await noPooler();
    if (missing !== null) {
      bench.tell(`  left out: ${missing}`);
      return { figures: [], measured: [] };
    }
    const pooler = await startPooler(bench.world);
    bench.opened.defer(pooler.stop);
    const targets: readonly Target[] = [
      await bench.start({ name: DIRECT }),
      { ...(await bench.start({ name: POOLED, env: { DATABASE_URL: pooler.url } })), pooler: pooler.pid },
    ];
    const figures: Figure[] = [];
    const measured: Measured[] = [];
    for (const work of [getSmall(bench.world.projects), append(bench.world.projects)]) {
      for (const callers of CALLERS) {
        const rounds = await compareTargets(bench, targets, work, callers);
        const name = `CPU of ${by(work.name, callers)}: through PgBouncer against direct`;
        figures.push(ratio(name, cpuRatioOf(rounds, POOLED, DIRECT), null));
        measured.push(...allOf(rounds));
      }
    }
    return { figures, measured };
  },
};
