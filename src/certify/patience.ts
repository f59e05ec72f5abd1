import { setTimeout as sleep } from 'node:timers/promises';
import { Failed } from './door.ts';
import type { RetryPolicy } from './options.ts';
import type { Random } from './random.ts';

/** Waits before the next try: a random time that doubles up to a cap, and not less than the service asks for. */
export const backOff = (policy: RetryPolicy, tries: number, random: Random, pushbackMs = 0): Promise<void> => {
  const most = Math.min(policy.mostMs, policy.firstMs * 2 ** Math.min(tries, 20));
  return sleep(Math.max(pushbackMs, random.next() * most));
};

/** Does what must be done, again and again while a failure can pass. @throws Failed when it cannot, or has lasted for `giveUpMs` */
export const patiently = async <T>(policy: RetryPolicy, random: Random, work: () => Promise<T>): Promise<T> => {
  const began = performance.now();
  for (let tries = 0; ; tries++) {
    try {
      return await work();
    } catch (error) {
      const passing = error instanceof Failed && error.passing;
      if (!passing || performance.now() - began > policy.giveUpMs) throw error;
      await backOff(policy, tries, random, error.pushbackMs);
    }
  }
};
