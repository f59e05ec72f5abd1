// `npm run bench`: what the service does with the processors and the time, against what one could use instead, and when it is
// under load. It starts everything itself, and calls over gRPC from other processes. It ends with 1 unless every figure is
// what it has to be.

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { untilInterrupted } from '../../src/commands/interrupt.ts';
import { audited } from './scenarios/audited.ts';
import { batch } from './scenarios/batch.ts';
import { exports } from './scenarios/exports.ts';
import { flood } from './scenarios/flood.ts';
import { growth } from './scenarios/growth.ts';
import { idleWatchers } from './scenarios/idle-watchers.ts';
import { pooled } from './scenarios/pooled.ts';
import { roundTrips } from './scenarios/round-trips.ts';
import { saturation } from './scenarios/saturation.ts';
import { versus } from './scenarios/versus.ts';
import { watchers } from './scenarios/watchers.ts';
import { ways } from './scenarios/ways.ts';
import { work } from './scenarios/work.ts';
import { hostTimes } from './support/cpu.ts';
import { createH2load } from './support/h2load.ts';
import { createMeter } from './support/measure.ts';
import { startNodeDriver } from './support/node-driver.ts';
import { toPlot } from './support/plot.ts';
import { isGood, type Report, toMarkdown } from './support/report.ts';
import type { Bench, Result, Scenario } from './support/scenario.ts';
import { openWorld } from './support/world.ts';

const SCENARIOS: readonly Scenario[] = [
  versus,
  audited,
  roundTrips,
  saturation,
  flood,
  batch,
  watchers,
  exports,
  growth,
  idleWatchers,
  ways,
  work,
  pooled,
];

const HELP = `npm run bench -- [options]

  --only NAMES      scenarios, separated by commas; all without it
  --seconds N       of one measurement (3)
  --rounds N        how often what is compared is measured, forth and back (3)
  --quick           one round of one second
  --json FILE       everything that was measured
  --markdown FILE   the tables that are printed
  --svg FILE        the curve of latency over offered load (scenario saturation)
  --help

Scenarios:
${SCENARIOS.map(({ name, about }) => `  ${name.padEnd(16)}  ${about}`).join('\n')}
`;

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    markdown: { type: 'string' },
    svg: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

/** @throws Error for a name that no scenario has */
const chosen = (): readonly Scenario[] => {
  if (options.only === undefined) return SCENARIOS;
  return options.only.split(',').map((name) => {
    const found = SCENARIOS.find((scenario) => scenario.name === name);
    if (!found)
      throw new Error(`there is no scenario ${name}; there are ${SCENARIOS.map((one) => one.name).join(', ')}`);
    return found;
  });
};

/** What is there for all scenarios. */
type Shared = Omit<Bench, 'opened' | 'start'>;

/** A scenario that fails is in the report as such, and the others go on. */
const attempt = async ({ name, run }: Scenario, shared: Shared): Promise<Result> => {
  shared.tell(`${name}:`);
  try {
    await using opened = new AsyncDisposableStack();
    const result = await run({ ...shared, opened, start: (options) => shared.world.start(options, opened) });
    for (const figure of result.figures) shared.tell(`  ${figure.name}: ${figure.value.toFixed(2)} ${figure.unit}`);
    return result;
  } catch (error) {
    shared.signal.throwIfAborted();
    const failure = error instanceof Error ? error.message : String(error);
    shared.tell(`  ${failure}`);
    return { figures: [], measured: [], failure };
  }
};

const run = async (scenarios: readonly Scenario[], signal: AbortSignal): Promise<Report> => {
  await using opened = new AsyncDisposableStack();
  const world = await openWorld(opened, signal);
  const node = await startNodeDriver(signal);
  opened.defer(() => node.stop());
  const plain = createH2load(world.folder, signal) ?? node;
  const drivers = { plain, stamping: node };
  const shared: Shared = {
    ...createMeter(world, drivers),
    drivers,
    seconds: options.quick ? 1 : Number(options.seconds),
    rounds: options.quick ? 1 : Number(options.rounds),
    signal,
    tell: (text) => void process.stderr.write(`${text}\n`),
  };
  const before = hostTimes();
  const results: (Result & { readonly scenario: string })[] = [];
  for (const scenario of scenarios) results.push({ scenario: scenario.name, ...(await attempt(scenario, shared)) });
  const after = hostTimes();
  const stolen = (after.stolen - before.stolen) / (after.all - before.all);
  return { driver: plain.name, time: new Date().toISOString(), stolen, results };
};

const tellOf = (report: Report): void => {
  const tables = toMarkdown(report);
  process.stdout.write(tables);
  if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
  if (options.markdown) writeFileSync(options.markdown, tables);
  const curve = report.results.find((result) => result.curve)?.curve;
  if (options.svg && curve) writeFileSync(options.svg, toPlot(curve));
  if (!isGood(report)) process.exitCode = 1;
};

if (options.help) process.stdout.write(HELP);
else tellOf(await untilInterrupted((signal) => run(chosen(), signal)));
