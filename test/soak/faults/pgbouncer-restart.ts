import type { Fault } from '../fault.ts';

/** How it is restarted: told to, as an update does, or killed. */
const RESTARTS = [['restart'], ['kill', 'start']] as const;

/** PgBouncer is restarted, or killed and started again. */
export const pgbouncerRestart: Fault = {
  name: 'pgbouncer-restart',
  what: 'PgBouncer restarted, or killed and started',
  batch: 1,
  missing: ({ pooler }) => (typeof pooler === 'string' ? pooler : null),
  strike: async ({ pooler }, random) => {
    if (typeof pooler === 'string') throw new Error(pooler);
    await pooler.restart(random.pick(RESTARTS));
    return { times: 1 };
  },
};
