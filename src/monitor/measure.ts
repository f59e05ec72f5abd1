import { whatHappened } from '../db/errors.ts';
import type { Database } from '../db/pool.ts';
import type { Logger } from '../log.ts';
import type { Measurements } from '../telemetry/measurements.ts';
import { type Failing, failing, failingFor } from './archiving.ts';
import { type Look, look } from './look.ts';
import type { LookAtPooler, PoolerLook } from './pooler.ts';
import { countCalls, rpcFigures, unaryFigures } from './quantiles.ts';
import { connectFailureRatio, meanPoolWait, type Snapshot, serverRates, withSnapshot } from './rates.ts';
import { type Figures, type ServerFigures, WINDOW_SECONDS } from './report.ts';
import type { MonitorSession } from './session.ts';

export interface MeasurerOptions {
  readonly session: MonitorSession;
  readonly lookAtPooler: LookAtPooler;
  /** Its pool is looked at, and never used. */
  readonly db: Pick<Database, 'state'>;
  readonly measurements: Measurements;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** From how many milliseconds on a statement is slow. */
  readonly slowMs: number;
  /** What rates, ratios and quantiles are of. */
  readonly windowSeconds?: number;
}

/** Readiness is not measured: the service knows it. */
type Measured = Omit<Figures, 'ready'>;

interface Measurer {
  /** What is known without asking anybody. */
  readonly first: Measured;
  /** Asks PostgreSQL and PgBouncer, for a few seconds at most. Never throws: who does not answer is not known. */
  measure(): Promise<Measured>;
}

/** Turns looks into figures, which takes what was counted before. Counting begins now. */
export const createMeasurer = (options: MeasurerOptions): Measurer => {
  const { session, lookAtPooler, db, measurements, slowMs, windowSeconds = WINDOW_SECONDS } = options;
  const tell = teller(options.log);
  let kept: readonly Snapshot[] = [];
  let archiveFails: Failing | null = null;

  const snapshot = (found: Look | null): Snapshot => ({
    at: performance.now() / 1000,
    server: found?.counters ?? null,
    pool: db.state(),
    slow: measurements.slow.count,
    calls: countCalls(measurements.calls),
  });

  const tryLook = async (): Promise<Look | null> => {
    try {
      const found = await look(session, slowMs);
      tell(null);
      return found;
    } catch (error) {
      tell(whatHappened(error));
      return null;
    }
  };

  const serverOf = (found: Look, now: Snapshot): ServerFigures => {
    archiveFails = failing(archiveFails, found.archiver);
    const archiving = { ...found.archiver, failingFor: failingFor(archiveFails, found.now) };
    return { ...found.server, ...serverRates(kept, now), archiving };
  };

  const figuresOf = (found: Look | null, { pools, stats }: PoolerLook): Measured => {
    const now = snapshot(found);
    const before = kept[0] ?? now;
    const figures: Measured = {
      time: Date.now(),
      server: found && serverOf(found, now),
      pool: db.state(),
      meanPoolWait: meanPoolWait(before.pool, now.pool),
      connectFailureRatio: connectFailureRatio(before.pool, now.pool),
      pgbouncerPools: pools,
      pgbouncerStats: stats,
      slowQueries: now.slow - before.slow + (found?.slowSessions ?? 0),
      rpcs: rpcFigures(before.calls, now.calls),
      ...unaryFigures(before.calls, now.calls, now.at - before.at),
    };
    kept = withSnapshot(kept, now, windowSeconds);
    return figures;
  };

  return {
    first: figuresOf(null, { pools: [], stats: [] }),
    measure: async () => {
      const [found, pooler] = await Promise.all([tryLook(), lookAtPooler()]);
      return figuresOf(found, pooler);
    },
  };
};

/** Tells once that PostgreSQL does not answer the monitor, and once that it does again. */
const teller = (log: MeasurerOptions['log']) => {
  let blind = false;
  /** @param reason null: it answers */
  return (reason: string | null): void => {
    if (reason !== null && !blind) log.warn({ reason }, 'the monitor does not see the database');
    if (reason === null && blind) log.info('the monitor sees the database again');
    blind = reason !== null;
  };
};
