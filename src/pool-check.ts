import type { Config } from './config.ts';
import { whatHappened } from './db/errors.ts';
import type { PoolerConsole } from './db/pgbouncer.ts';
import type { Database } from './db/pool.ts';
import { isOutdated, limitsOf, OUTDATED, reachedBy, readLimits } from './db/pool-limits.ts';
import { brokenRules, describePlan } from './db/pool-plan.ts';
import type { Logger } from './log.ts';
import { bounded } from './rpc/time.ts';

/** How long the check may hold up the start of a service, in milliseconds. */
const TIMEOUT_MS = 3000;

/** What to check, and against what. */
interface PoolCheck {
  readonly db: Database;
  /** The service's, which `db` connects with. */
  readonly databaseUrl: string;
  /** Null: none is known. */
  readonly pooler: PoolerConsole | null;
  readonly config: Pick<Config, 'poolSize' | 'maxReplicas'>;
  readonly log: Logger;
}

/**
 * Compares the pools with what PgBouncer and PostgreSQL let in, and warns of each rule that does not hold, and of what cannot be
 * asked: a refusal could keep a replica that crashed from coming back. Takes three seconds at most.
 */
export const checkPools = async (check: PoolCheck): Promise<void> => {
  const patience = AbortSignal.timeout(TIMEOUT_MS);
  try {
    await bounded(compare(check), patience);
  } catch (error) {
    check.log.warn({ reason: whatHappened(error) }, 'the pools cannot be compared with what the database lets in');
  }
};

const compare = async ({ db, databaseUrl, pooler, config, log }: PoolCheck): Promise<void> => {
  const server = await readLimits(db);
  const settings = await pooler?.settings().catch((error: unknown) => {
    log.warn({ reason: whatHappened(error) }, 'PgBouncer cannot be asked, so its pools are not compared');
    return null;
  });
  // Without an answer nothing is known of what stands between.
  if (settings === null) return;
  if (settings && isOutdated(settings.version)) log.warn({ version: settings.version }, `PgBouncer: ${OUTDATED}`);
  const { poolSize, maxReplicas } = config;
  const plan = { poolSize, maxReplicas, server, pooler: settings ? limitsOf(settings, reachedBy(databaseUrl)) : null };
  for (const { says, mend } of brokenRules(plan)) log.warn({ mend }, `the pools do not fit: ${says}`);
  log.debug({ plan: describePlan(plan) }, 'the pools were compared with what the database lets in');
};
