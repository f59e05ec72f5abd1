import type { Client } from 'pg';
import { startProxy } from '../../support/proxy.ts';
import type { Measured } from '../support/measure.ts';
import { type Bench, by, type Figure, type Scenario } from '../support/scenario.ts';
import { append, createOne, getProject, getSmall, listFifty, type Work } from '../support/works.ts';
import type { Target } from '../support/world.ts';

/** What the service asks of the database for itself meanwhile is less than this, per call. */
const TOLERANCE = 0.05;
const MOST = 1 + TOLERANCE;
const CALLERS = [1, 32];

/** Statements that the service's role has run, since the statistics were reset. */
const statementsRun = async (admin: Client): Promise<number> => {
  const { rows } = await admin.query<{ calls: number }>(
    "select sum(calls)::float8 as calls from stats.pg_stat_statements where userid = 'jeex_app'::regrole",
  );
  return rows[0]?.calls ?? 0;
};

const count = async (bench: Bench, target: Target, work: Work, callers: number, roundTrips: () => number) => {
  const { admin } = bench.world.database;
  // Warm, so that connections are made and statements prepared.
  await bench.measure(target, work, { callers, seconds: bench.seconds });
  const before = { roundTrips: roundTrips(), statements: await statementsRun(admin) };
  const measured = await bench.measure(target, work, { callers, seconds: bench.seconds });
  const each = (number: number) => number / measured.calls;
  const name = by(work.name, callers);
  const figures: Figure[] = [
    {
      name: `${name}: round trips to the database`,
      value: each(roundTrips() - before.roundTrips),
      spread: null,
      unit: 'per call',
      bound: { most: MOST },
    },
    {
      name: `${name}: statements`,
      value: each((await statementsRun(admin)) - before.statements),
      spread: null,
      unit: 'per call',
      bound: { most: MOST },
    },
  ];
  return { figures, measured };
};

export const roundTrips: Scenario = {
  name: 'round-trips',
  about: 'round trips to the database, and statements, per read and per write of a single resource',
  run: async (bench) => {
    const { world } = bench;
    const proxy = await startProxy(world.database.appUrl);
    bench.opened.defer(() => proxy.stop());
    const figures: Figure[] = [];
    const measured: Measured[] = [];
    const target = await bench.start({ name: 'service', env: { DATABASE_URL: proxy.url } });
    for (const make of [getSmall, getProject, listFifty, append, createOne]) {
      for (const callers of CALLERS) {
        const found = await count(bench, target, make(world.projects), callers, () => proxy.roundTrips);
        figures.push(...found.figures);
        measured.push(found.measured);
      }
    }
    return { figures, measured };
  },
};
