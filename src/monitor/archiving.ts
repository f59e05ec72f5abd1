import type { ArchivingFigures } from './report.ts';

/** What PostgreSQL tells of its archiver: of the failures since its last success, only the newest. Times as in the report. */
export type ArchiverState = Omit<ArchivingFigures, 'failingFor'>;

/** Since when archiving fails, as far as the monitor has seen. */
export interface Failing {
  /** How many files were archived when it began to: another number ends it. */
  readonly archivedCount: bigint;
  /** Microseconds since the epoch. */
  readonly since: bigint;
}

/** Follows on from what was known before; null: it works, or nothing was to be archived. */
export const failing = (before: Failing | null, archiver: ArchiverState): Failing | null => {
  const { enabled, lastFailedTime, lastArchivedTime, archivedCount } = archiver;
  if (!enabled || lastFailedTime === null) return null;
  if (lastArchivedTime !== null && lastArchivedTime > lastFailedTime) return null;
  return before?.archivedCount === archivedCount ? before : { archivedCount, since: lastFailedTime };
};

/** In seconds. @param now of the server's clock, in microseconds since the epoch */
export const failingFor = (found: Failing | null, now: bigint): number =>
  found === null ? 0 : Math.max(0, Number(now - found.since) / 1_000_000);
