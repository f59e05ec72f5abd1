import { type Fault, never } from '../fault.ts';

/** A replica of the service is told to stop while the other one serves, and started again. */
export const serviceTerm: Fault = {
  name: 'service-term',
  what: 'a replica told to stop with SIGTERM and started again',
  batch: 1,
  missing: never,
  strike: async ({ mortals }, random) => {
    const replica = random.pick(mortals);
    const began = performance.now();
    const code = await replica.end('SIGTERM');
    const took = performance.now() - began;
    await replica.start();
    const broken = code === 0 ? [] : [`${replica.name}, told to stop, ended with ${code}`];
    return { times: 1, figures: { 'until it has ended, ms': [took] }, broken };
  },
};
