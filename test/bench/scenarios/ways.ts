import { getVersion } from '../../../src/documents/sql.ts';
import { allOf, compareTargets, cpuRatioOf } from '../support/compare.ts';
import { familyCpuOf } from '../support/cpu.ts';
import type { Measured } from '../support/measure.ts';
import { plainLoop } from '../support/plain-loop.ts';
import { type Bench, by, type Figure, ratio, type Scenario } from '../support/scenario.ts';
import { getSmall } from '../support/works.ts';
import { SMALL } from '../support/world.ts';

const OURS = 'service';
const TRANSACTION = 'transaction';
const CALLERS = [32, 1];
/** As many connections as a service has. */
const MOST_CLIENTS = 10;

/** What PostgreSQL alone takes of the statement that the service sends for one call. */
const measureStatement = async ({ world, seconds, signal }: Bench, callers: number): Promise<Figure[]> => {
  const { appUrl, postmaster } = world.database;
  const params: Readonly<Record<string, string>> = {
    project: world.projects[0] as string,
    actor: world.actor,
    document_type: SMALL,
    version: '1',
    at_revision: '0',
    full: 'true',
  };
  const { name, run } = plainLoop();
  const loop = {
    url: appUrl,
    clients: Math.min(callers, MOST_CLIENTS),
    seconds,
    text: getVersion.text,
    values: getVersion.order.map((key) => params[key] as string),
    folder: world.folder,
    signal,
  };
  const before = familyCpuOf(postmaster);
  const looped = await run(loop);
  const cpu = ((familyCpuOf(postmaster) - before) * 1e6) / looped.calls;
  const informing = { spread: null, bound: null };
  const of = `the statement of GetVersion by ${name}, ${loop.clients} connections`;
  return [
    { name: `${of}: rate`, value: looped.calls / looped.seconds, unit: 'statements/s', ...informing },
    { name: `${of}: CPU of PostgreSQL`, value: cpu, unit: 'µs', ...informing },
  ];
};

export const ways: Scenario = {
  name: 'ways',
  about: 'for information: the scope set by a transaction for each call, and the statement alone, without a service',
  run: async (bench) => {
    const targets = [
      await bench.start({ name: OURS }),
      await bench.start({ name: TRANSACTION, comparator: TRANSACTION }),
    ];
    const work = getSmall(bench.world.projects);
    const figures: Figure[] = [];
    const measured: Measured[] = [];
    for (const callers of CALLERS) {
      const rounds = await compareTargets(bench, targets, work, callers);
      const name = `CPU of ${by(work.name, callers)}: grpc-js with a transaction for each call against the service`;
      figures.push(
        ratio(name, cpuRatioOf(rounds, TRANSACTION, OURS), null),
        ...(await measureStatement(bench, callers)),
      );
      measured.push(...allOf(rounds));
    }
    return { figures, measured };
  },
};
