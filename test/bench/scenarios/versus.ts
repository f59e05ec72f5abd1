import assert from 'node:assert/strict';
import { allOf, compareTargets, cpuRatioOf } from '../support/compare.ts';
import { type Bench, by, type Figure, ratio, type Scenario } from '../support/scenario.ts';
import { getSmall, type Work } from '../support/works.ts';
import { ask, type Target } from '../support/world.ts';

const OURS = 'service';
const CONNECT = 'connect';
const BARE = 'bare';

/** By the number of callers: how many times less than connect-node's way, and how many times of the bare server, at most. */
const BOUNDS = [
  { callers: 32, connect: 4, bare: 1.0 },
  { callers: 1, connect: 2.5, bare: 1.6 },
];

/** All answer the same bytes to the same request. */
const checkAnswers = async (targets: readonly Target[], work: Work): Promise<void> => {
  for (const body of work.bodies.slice(0, 2)) {
    const [first, ...others] = await Promise.all(targets.map((target) => ask(target, work.path, body)));
    for (const other of others) assert.deepEqual(other, first, `${work.name}: the servers answer differently`);
  }
};

const compareAt = async (bench: Bench, targets: readonly Target[], work: Work, bounds: (typeof BOUNDS)[number]) => {
  const rounds = await compareTargets(bench, targets, work, bounds.callers);
  const of = `CPU of ${by(work.name, bounds.callers)}`;
  const figures: Figure[] = [
    ratio(`${of}: connect-node with a transaction against the service`, cpuRatioOf(rounds, CONNECT, OURS), {
      least: bounds.connect,
    }),
    ratio(`${of}: the service against the bare server`, cpuRatioOf(rounds, OURS, BARE), { most: bounds.bare }),
  ];
  return { figures, measured: allOf(rounds) };
};

export const versus: Scenario = {
  name: 'versus',
  about:
    'CPU of a GetVersion against the same handlers through connect-node with a transaction, and against a bare server',
  run: async (bench) => {
    const { world } = bench;
    const targets = [
      await bench.start({ name: OURS }),
      await bench.start({ name: CONNECT, comparator: CONNECT }),
      await bench.start({ name: BARE, comparator: BARE, open: true }),
    ];
    const work = getSmall(world.projects);
    await checkAnswers(targets, work);
    const results = [];
    for (const bounds of BOUNDS) results.push(await compareAt(bench, targets, work, bounds));
    return {
      figures: results.flatMap(({ figures }) => figures),
      measured: results.flatMap(({ measured }) => measured),
    };
  },
};
