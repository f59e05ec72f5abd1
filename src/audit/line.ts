import type { AccessRecord } from './access-log.ts';

/** How many ids of a kind a record names; with more, it says how many there were. */
const MAX_IDS = 20;

/** What a number of reads have in common. */
export type Common = Pick<AccessRecord, 'rpc' | 'caller' | 'actor' | 'projects' | 'result'>;

/** The line of one call, at its end. */
export const accessLine = (record: AccessRecord): string =>
  line(new Date(), 'access', {
    ...commonFields(record),
    ...idFields('user', record.users),
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
  ...idFields('project', projects),
  result,
});

const idFields = (kind: 'project' | 'user', ids: readonly string[]) => {
  if (ids.length === 0) return {};
  if (ids.length <= MAX_IDS) return { [`${kind}s`]: ids };
  return { [`${kind}s`]: ids.slice(0, MAX_IDS), [`${kind}_count`]: ids.length };
};
