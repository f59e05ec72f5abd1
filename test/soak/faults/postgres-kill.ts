import { type Fault, never } from '../fault.ts';

/** PostgreSQL is killed with all its processes, or its first process alone, and started again. */
export const postgresKill: Fault = {
  name: 'postgres-kill',
  what: 'PostgreSQL killed with SIGKILL and started again',
  batch: 1,
  missing: never,
  strike: async ({ cluster }, random) => {
    await cluster.kill(random.chance(0.5));
    const began = performance.now();
    await cluster.start();
    return { times: 1, figures: { 'until PostgreSQL accepts connections, ms': [performance.now() - began] } };
  },
};
