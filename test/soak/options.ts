import { parseArgs } from 'node:util';
import { FAULTS } from './faults/index.ts';

export interface Options {
  readonly seed: number;
  /** How long faults go on, and what ends them instead: a number of rounds, or of times of each. */
  readonly minutes: number;
  readonly rounds: number | null;
  readonly times: number | null;
  /** Names of faults. */
  readonly only: readonly string[];
  /** Without PgBouncer, whatever is there. */
  readonly direct: boolean;
  readonly json: string | null;
  readonly callers: number;
  readonly projects: number;
  readonly watchers: number;
  /** Calls a second, all callers together; 0: as fast as they go. */
  readonly rate: number;
}

/** A mistake in the arguments. */
export class WrongUse extends Error {}

const NAMES = FAULTS.map(({ name }) => name);

export const HELP = `npm run soak -- [options]

Two replicas of the service, a PostgreSQL 18 of their own with fsync, and PgBouncer where Docker has its image; callers of
\`jeex-persistence certify\` load them, and faults strike one after the other by a schedule. At the end the ledger of every
call is checked, and what is held at rest. One page says what came out; exit code 1 when a promise was broken.

  --minutes <n>     for how long faults strike (5)
  --rounds <n>      instead: every fault in its turn, so many times
  --times <n>       instead: each fault so many times
  --only <faults>   some of them, separated by commas
  --seed <n>        the same faults in the same order with the same choices (random)
  --direct          without PgBouncer
  --callers <n>     of the load (16)       --projects <n>    they work in (8)
  --watchers <n>    (8)                    --rate <n>        calls a second; 0: as fast as they go (150)
  --json <file>     the figures as JSON besides
  --help

The faults, each once a round:
${FAULTS.map(({ name, what }) => `  ${name.padEnd(18)}${what}`).join('\n')}

File systems that can be filled take root; without it the faults that fill a disk are left out.
`;

const whole = (name: string, text: string, least = 1): number => {
  const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(number >= least)) throw new WrongUse(`--${name}: expected a whole number from ${least} on`);
  return number;
};

const faultsOf = (text: string | undefined): readonly string[] => {
  if (text === undefined) return NAMES;
  const names = text.split(',');
  const unknown = names.filter((name) => !NAMES.includes(name));
  if (unknown.length > 0)
    throw new WrongUse(`--only: there is no ${unknown.join(', ')}; there are ${NAMES.join(', ')}`);
  return names;
};

const parse = (args: readonly string[]) => {
  try {
    return parseArgs({
      args: [...args],
      options: {
        minutes: { type: 'string', default: '5' },
        rounds: { type: 'string' },
        times: { type: 'string' },
        only: { type: 'string' },
        seed: { type: 'string' },
        direct: { type: 'boolean', default: false },
        json: { type: 'string' },
        callers: { type: 'string', default: '16' },
        projects: { type: 'string', default: '8' },
        watchers: { type: 'string', default: '8' },
        rate: { type: 'string', default: '150' },
        help: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    throw new WrongUse((error as Error).message);
  }
};

/** @returns null when help is asked for @throws WrongUse */
export const readOptions = (args: readonly string[]): Options | null => {
  const given = parse(args);
  if (given.help) return null;
  if (given.rounds !== undefined && given.times !== undefined)
    throw new WrongUse('--rounds and --times exclude each other');
  return {
    seed: given.seed === undefined ? Math.floor(Math.random() * 1_000_000) : whole('seed', given.seed, 0),
    minutes: whole('minutes', given.minutes),
    rounds: given.rounds === undefined ? null : whole('rounds', given.rounds),
    times: given.times === undefined ? null : whole('times', given.times),
    only: faultsOf(given.only),
    direct: given.direct,
    json: given.json ?? null,
    callers: whole('callers', given.callers),
    projects: whole('projects', given.projects),
    watchers: whole('watchers', given.watchers, 0),
    rate: whole('rate', given.rate, 0),
  };
};
