import type { AccessRecord } from './access-log.ts';

/** What a number of reads have in common. */
export type Common = Pick<AccessRecord, 'rpc' | 'caller' | 'actor' | 'projects' | 'result'>;

/** The line of one call, at its end. */
export const accessLine = (record: AccessRecord): string =>
  line(new Date(), 'access', {
    ...commonFields(record),
    users: named(record.users),
    correlation_id: record.correlationId,
    duration_ms: record.durationMs,
  });

/** The line of a second's reads that have this in common. */
export const aggregateLine = (second: number, common: Common, count: number, maxDurationMs: number): string =>
  line(new Date(second * 1000), 'aggregate', { ...commonFields(common), count, max_duration_ms: maxDurationMs });

/** The line that stands for so many calls whose records found no room. */
export const droppedLine = (count: number): string => line(new Date(), 'dropped', { count });

/** The line that stands for so many calls that were refused because records found no room. */
export const refusedLine = (count: number): string => line(new Date(), 'refused', { count });

const line = (time: Date, kind: string, fields: object): string =>
  JSON.stringify({ time: time.toISOString(), kind, ...fields });

const commonFields = ({ rpc, caller, actor, projects, result }: Common) => ({
  rpc,
  caller: caller || undefined,
  actor: actor ?? undefined,
  projects: named(projects),
  result,
});

/** All of them: the contract lets a call name 1 000 at most, and who asks for many is on record with each. */
const named = (ids: readonly string[]): readonly string[] | undefined => (ids.length === 0 ? undefined : ids);
