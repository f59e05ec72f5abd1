import { Random } from '../../src/certify/random.ts';

/** One fault of a schedule, and the numbers it decides by. */
export interface Step<F> {
  readonly fault: F;
  readonly random: Random;
}

/** More than there are faults: each round has as many streams of numbers. */
const STREAMS = 100;

const shuffled = <T>(items: readonly T[], random: Random): T[] => {
  const rest = [...items];
  return items.flatMap(() => rest.splice(random.below(rest.length), 1));
};

/**
 * Every fault once in each round, in an order of the round's own, without end. Each step has numbers of its own, so that the same seed
 * brings the same faults with the same choices, however long each of them takes.
 */
export function* schedule<F>(seed: number, faults: readonly F[]): Generator<Step<F>> {
  const steps = faults.map((fault, place) => ({ fault, place }));
  for (let first = 0; ; first += STREAMS) {
    for (const { fault, place } of shuffled(steps, new Random(seed, first))) {
      yield { fault, random: new Random(seed, first + 1 + place) };
    }
  }
}
