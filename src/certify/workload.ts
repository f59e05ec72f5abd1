import { setTimeout as sleep } from 'node:timers/promises';
import { Door } from './door.ts';
import type { CertifyOptions } from './options.ts';
import { Random } from './random.ts';
import { DOCUMENT_STEPS, type Step } from './steps-documents.ts';
import { EXPORT_STEPS } from './steps-exports.ts';
import { OTHER_STEPS } from './steps-others.ts';
import { RUN_STEPS } from './steps-runs.ts';
import { type Shared, Worker } from './worker.ts';
import { Surroundings } from './world.ts';

const STEPS = [...DOCUMENT_STEPS, ...RUN_STEPS, ...EXPORT_STEPS, ...OTHER_STEPS];
const WEIGHT = STEPS.reduce((sum, [weight]) => sum + weight, 0);

/** Streams of the seed for what has to do with waiting. */
const JITTER = 0x10000;

const pickStep = (random: Random): Step => {
  let left = random.below(WEIGHT);
  for (const [weight, step] of STEPS) {
    left -= weight;
    if (left < 0) return step;
  }
  throw new Error('the weights do not add up');
};

/** Gives every caller its turn, so that no more steps begin in a second than `rate`; 0: as many as they like. */
const pacer = (rate: number): (() => Promise<void>) => {
  let next = performance.now();
  return async () => {
    if (rate === 0) return;
    const now = performance.now();
    // What was missed, while the service was away, is not made up for.
    next = Math.max(next + 1000 / rate, now - 1000);
    if (next > now) await sleep(next - now);
  };
};

/** Callers at work. */
export interface Work {
  /** When all have ended: told to, or because the ledger is full. Rejects when a step failed in a way no fault explains. */
  readonly ended: Promise<void>;
  /** No new step begins; those that have begun are ended, with their retries. */
  stop(): void;
}

/** Starts the callers. Each decides by a stream of its own of the seed. */
export const startWork = (shared: Shared, { connect, token, seed, callers, rate = 0 }: CertifyOptions): Work => {
  const surroundings = shared.places.map((place) => new Surroundings(place));
  const turn = pacer(rate);
  let stopping = false;
  const run = async (caller: number): Promise<void> => {
    const door = new Door(connect(), token);
    const worker = new Worker(shared, door, new Random(seed, caller), new Random(seed, JITTER + caller));
    try {
      while (!stopping && !shared.ledger.full) {
        await turn();
        const around = worker.random.pick(surroundings);
        await pickStep(worker.random)(worker, around);
      }
    } catch (error) {
      stopping = true;
      throw error;
    } finally {
      door.close();
    }
  };
  const ended = Promise.all(Array.from({ length: callers }, (_, caller) => run(caller))).then(() => {});
  return {
    ended,
    stop: () => {
      stopping = true;
    },
  };
};
