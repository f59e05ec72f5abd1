import { randomInt } from 'node:crypto';
import { allOf, cpuRatioOf, interleave } from '../support/compare.ts';
import { openDatabaseBeside } from '../support/database.ts';
import { makeProjects } from '../support/projects.ts';
import { type Bench, by, ratio, type Scenario } from '../support/scenario.ts';
import { getSmall, type Work } from '../support/works.ts';
import { callTarget, type Target } from '../support/world.ts';

const MOST = 1.2;
const CALLERS = [32, 1];
const VERSIONS = 10;
const FEW = 100;
const MANY = 100_000;
/** Of the projects of each, as many are called, wherever they are. */
const CALLED = 20_000;

interface Sized {
  readonly target: Target;
  readonly work: Work;
}

/** A database of its own with so many projects, a service on it, and calls for any of them. */
const open = async (bench: Bench, count: number): Promise<Sized> => {
  bench.tell(`making ${count} projects with ${VERSIONS} versions each`);
  const { world } = bench;
  const { admin, env, close } = await openDatabaseBeside(world.database, `bench_${count}`);
  const started = await bench.start({ name: `${count} projects`, env });
  const { 'x-actor-id': _, ...system } = started.headers;
  const actor = await callTarget({ ...started, headers: system }, async ({ users }) => {
    const { user } = await users.createUser({ email: 'bench@example.org', name: 'Bench' });
    return user?.id ?? '';
  });
  const projects = await makeProjects(admin, actor, count, VERSIONS);
  await close();
  const called = Array.from({ length: CALLED }, () => projects[randomInt(projects.length)] as string);
  return { target: { ...started, headers: { ...started.headers, 'x-actor-id': actor } }, work: getSmall(called) };
};

export const growth: Scenario = {
  name: 'growth',
  about: `CPU of a GetVersion anywhere in ${MANY} projects with ${VERSIONS} versions each, against ${FEW} projects`,
  run: async (bench) => {
    const sized = [await open(bench, MANY), await open(bench, FEW)];
    const byName = new Map(sized.map((one) => [one.target.name, one]));
    const [many = '', few = ''] = byName.keys();
    const results = [];
    for (const callers of CALLERS) {
      bench.tell(by('GetVersion 1.2 KB', callers));
      const rounds = await interleave([many, few], bench.rounds, (name) => {
        const { target, work } = byName.get(name) as Sized;
        return bench.measure(target, work, { callers, seconds: bench.seconds });
      });
      const name = `CPU of ${by('GetVersion 1.2 KB', callers)}: with ${many} against ${few}`;
      results.push({ figure: ratio(name, cpuRatioOf(rounds, many, few), { most: MOST }), measured: allOf(rounds) });
    }
    return {
      figures: results.map(({ figure }) => figure),
      measured: results.flatMap(({ measured }) => measured),
    };
  },
};
