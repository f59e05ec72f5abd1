import type { Measured } from './measure.ts';
import { type Bench, by } from './scenario.ts';
import { type Spread, spreadOf } from './statistics.ts';
import type { Work } from './works.ts';
import type { Target } from './world.ts';

/** What rounds have measured, by target's name: in each round twice, forth and back. */
export type Rounds = readonly ReadonlyMap<string, readonly Measured[]>[];

/** Measures every one, then every one in reverse, and so on: A B B A, so that what else the machine does meets all alike. */
export const interleave = async (
  names: readonly string[],
  rounds: number,
  measure: (name: string) => Promise<Measured>,
): Promise<Rounds> => {
  const done: Map<string, Measured[]>[] = [];
  for (let i = 0; i < rounds; i++) {
    const round = new Map<string, Measured[]>(names.map((name) => [name, []]));
    for (const name of [...names, ...names.toReversed()]) round.get(name)?.push(await measure(name));
    done.push(round);
  }
  return done;
};

/** The same of servers that are called for the same work. */
export const compareTargets = (
  bench: Bench,
  targets: readonly Target[],
  work: Work,
  callers: number,
): Promise<Rounds> => {
  bench.tell(by(work.name, callers));
  const byName = new Map(targets.map((target) => [target.name, target]));
  return interleave([...byName.keys()], bench.rounds, (name) =>
    bench.measure(byName.get(name) as Target, work, { callers, seconds: bench.seconds }),
  );
};

/** How many times as much CPU, of all processes together, a call of one server takes as one of another. */
export const cpuRatioOf = (rounds: Rounds, one: string, other: string): Spread =>
  ratioOf(rounds, one, other, ({ cpu: { all } }) => all);

const mean = (
  round: ReadonlyMap<string, readonly Measured[]>,
  name: string,
  read: (one: Measured) => number,
): number => {
  const found = round.get(name) ?? [];
  return found.reduce((sum, one) => sum + read(one), 0) / found.length;
};

/** How many times as much one takes as another, by the rounds' pairs. */
export const ratioOf = (rounds: Rounds, one: string, other: string, read: (measured: Measured) => number): Spread =>
  spreadOf(rounds.map((round) => mean(round, one, read) / mean(round, other, read)));

/** Everything that was measured. */
export const allOf = (rounds: Rounds): Measured[] => rounds.flatMap((round) => [...round.values()].flat());
