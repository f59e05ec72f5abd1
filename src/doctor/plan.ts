import { limitsOf, reachedBy, readLimits } from '../db/pool-limits.ts';
import { brokenRules, describePlan } from '../db/pool-plan.ts';
import { isPooled } from '../db/pooled.ts';
import { type Check, failed, Skip } from './check.ts';

/** Whether the pools of all replicas fit into what PgBouncer and PostgreSQL let in. */
export const plan: Check = {
  group: 'pools',
  name: 'arithmetic',
  run: async (patient) => {
    const { pgbouncerAdminUrl, poolSize, maxReplicas } = patient.config;
    const server = await readLimits(await patient.db());
    if (pgbouncerAdminUrl === null && (await isPooled(await patient.app()))) {
      throw new Skip("PGBOUNCER_ADMIN_URL is unset, and the pooler's own pools are not known without it");
    }
    const limits =
      pgbouncerAdminUrl === null
        ? null
        : limitsOf(await patient.pooler(), reachedBy((await patient.database()).appUrl));
    const planned = { poolSize, maxReplicas, server, pooler: limits };
    const faults = brokenRules(planned).map(({ says, mend }) => failed(says, mend));
    return { seen: describePlan(planned), faults };
  },
};
