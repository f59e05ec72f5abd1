import { type Fault, never } from '../fault.ts';

/** A replica of the service is killed and started again. */
export const serviceKill: Fault = {
  name: 'service-kill',
  what: 'a replica killed with SIGKILL and started again',
  batch: 1,
  missing: never,
  strike: async ({ mortals }, random) => {
    const replica = random.pick(mortals);
    await replica.end('SIGKILL');
    const began = performance.now();
    await replica.start();
    return { times: 1, figures: { 'until it is ready again, ms': [performance.now() - began] } };
  },
};
