import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { startProxy } from '../../support/proxy.ts';
import type { Measured } from '../support/measure.ts';
import { type Bench, by, type Figure, type Scenario } from '../support/scenario.ts';
import { append, createOne, getProject, getSmall, listFifty, type Work } from '../support/works.ts';
import type { Target } from '../support/world.ts';

/** What the service asks for itself is taken off, as it is at rest, and may differ by this, per call. */
const TOLERANCE = 0.05;
const MOST = 1 + TOLERANCE;
const CALLERS = [1, 32];
const REST_MS = 3_000;

/** Statements that the service's role has run for callers: what tells other processes of changes comes after the answer. */
const statementsRun = async (admin: Client): Promise<number> => {
  const { rows } = await admin.query<{ calls: number }>(
    `select sum(calls)::float8 as calls from stats.pg_stat_statements
     where userid = 'jeex_app'::regrole and query not like '%pg_notify%'`,
  );
  return rows[0]?.calls ?? 0;
};

/** What the database was asked until a moment of `performance.now()`. */
interface Asked {
  readonly at: number;
  readonly roundTrips: number;
  readonly statements: number;
}

type Look = () => Promise<Asked>;

/** What a service at rest asks for itself, in a millisecond. */
const lookAtRest = async (look: Look): Promise<Omit<Asked, 'at'>> => {
  const before = await look();
  await sleep(REST_MS);
  const after = await look();
  const each = (asked: number) => asked / (after.at - before.at);
  return {
    roundTrips: each(after.roundTrips - before.roundTrips),
    statements: each(after.statements - before.statements),
  };
};

const count = async (bench: Bench, target: Target, work: Work, callers: number, look: Look) => {
  // Warm, so that connections are made and statements prepared.
  await bench.measure(target, work, { callers, seconds: bench.seconds });
  const rest = await lookAtRest(look);
  const before = await look();
  const measured = await bench.measure(target, work, { callers, seconds: bench.seconds });
  const after = await look();
  const figureOf = (name: string, of: 'roundTrips' | 'statements'): Figure => ({
    name: `${by(work.name, callers)}: ${name}`,
    value: (after[of] - before[of] - rest[of] * (after.at - before.at)) / measured.calls,
    spread: null,
    unit: 'per call',
    bound: { most: MOST },
  });
  return {
    figures: [figureOf('round trips to the database', 'roundTrips'), figureOf('statements', 'statements')],
    measured,
  };
};

export const roundTrips: Scenario = {
  name: 'round-trips',
  about: 'round trips to the database, and statements, per read and per write of a single resource',
  run: async (bench) => {
    const { world } = bench;
    const proxy = await startProxy(world.database.appUrl);
    bench.opened.defer(() => proxy.stop());
    const look = async (): Promise<Asked> => ({
      at: performance.now(),
      roundTrips: proxy.roundTrips,
      statements: await statementsRun(world.database.admin),
    });
    const figures: Figure[] = [];
    const measured: Measured[] = [];
    const target = await bench.start({ name: 'service', env: { DATABASE_URL: proxy.url } });
    for (const make of [getSmall, getProject, listFifty, append, createOne]) {
      for (const callers of CALLERS) {
        const found = await count(bench, target, make(world.projects), callers, look);
        figures.push(...found.figures);
        measured.push(found.measured);
      }
    }
    return { figures, measured };
  },
};
