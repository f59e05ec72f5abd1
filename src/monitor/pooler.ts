import { whatHappened } from '../db/errors.ts';
import type { PoolerConsole, PoolerStats, PoolState } from '../db/pgbouncer.ts';
import { inTime } from '../in-time.ts';
import type { Logger } from '../log.ts';

/** How long a look waits for PgBouncer at most, and how long after a failure none waits at all, in milliseconds. */
const PATIENCE_MS = 250;
const RETRY_MS = 1000;

/** PgBouncer at one moment. */
export interface PoolerLook {
  readonly pools: readonly PoolState[];
  readonly stats: readonly PoolerStats[];
}

/** PgBouncer as it is now; nothing while it does not answer. Never throws, and is bounded in time. */
export type LookAtPooler = () => Promise<PoolerLook>;

const NOTHING: PoolerLook = { pools: [], stats: [] };

/** Looks at PgBouncer through its console; without one there is nothing. A console that falls silent, and one that answers again, is logged. */
export const poolerLook = (pooler: PoolerConsole | null, log: Logger): LookAtPooler => {
  if (pooler === null) return async () => NOTHING;
  let asked: Promise<PoolerLook> | null = null;
  let failedAt = Number.NEGATIVE_INFINITY;

  const ask = async (): Promise<PoolerLook> => {
    try {
      const [pools, stats] = await Promise.all([pooler.pools(), pooler.stats()]);
      if (Number.isFinite(failedAt)) log.info("PgBouncer's console answers again");
      failedAt = Number.NEGATIVE_INFINITY;
      return { pools, stats };
    } catch (error) {
      if (!Number.isFinite(failedAt)) log.warn({ reason: whatHappened(error) }, "PgBouncer's pools are not known");
      failedAt = performance.now();
      return NOTHING;
    } finally {
      asked = null;
    }
  };

  return async () => {
    if (performance.now() - failedAt < RETRY_MS) return NOTHING;
    // A question that took too long is not asked a second time beside it.
    asked ??= ask();
    return await inTime(asked, PATIENCE_MS, NOTHING);
  };
};
