import { z } from 'zod';
import { prefixed } from '../db/prefixed.ts';
import { read, readEach, sql } from '../db/statement.ts';
import { VersionRow } from '../documents/version.ts';
import { executionRow } from '../executions/sql.ts';
import { EXPORT_BYTES, seenExportRow } from '../exports/sql.ts';

/** A row of `changes`. */
const changeRow = z.object({
  project_id: z.string(),
  revision: z.bigint(),
  kind: z.string(),
  resource_id: z.string().nullable(),
  document_type: z.string().nullable(),
  version: z.int().nullable(),
  actor_id: z.string().nullable(),
  caller: z.string(),
  correlation_id: z.string(),
  create_time: z.bigint(),
  chain: z.instanceof(Buffer),
});
export type ChangeRow = z.infer<typeof changeRow>;

/** Where a project's feed stands: its last revision, and the oldest cursor from which it is whole. */
const feed = { head: z.bigint(), earliest_revision: z.bigint() };

const CHANGE = sql.fragment`c.revision, c.kind, c.resource_id, c.document_type, c.version, c.actor_id, c.caller,
  c.correlation_id, c.create_time, c.chain`;

type Fragment = typeof CHANGE;

const FEED = sql.fragment`p.revision as head, p.earliest_revision`;

/** A project's changes after a revision, oldest first; always at least a row, which tells where the feed stands. */
const changesAfter = (after: Fragment, most: Fragment, feed = FEED): Fragment => sql.fragment`
select p.id as project_id, ${feed}, ${CHANGE}
from projects p
left join lateral (
  select c.* from changes c
  where c.project_id = scope.project_id and c.revision > case when ${after} is null then p.revision else ${after} end
  order by c.revision limit ${most}
) as c on true
where p.id = scope.project_id
order by c.revision`;

export const listChanges = read({
  name: 'changes.list',
  need: 'member',
  params: { after: 'int8', most: 'int4' },
  row: z.union([changeRow.extend(feed), z.object({ revision: z.null(), ...feed })]),
  sql: (p) => changesAfter(p.after, p.most),
});

const chainFeed = { ...feed, head_chain: z.instanceof(Buffer) };

/** The same for who walks the whole chain, also of a deleted project. */
export const walkChanges = read({
  name: 'changes.walk',
  need: 'owner',
  withDeleted: () => sql.fragment`true`,
  params: { after: 'int8', most: 'int4' },
  row: z.union([changeRow.extend(chainFeed), z.object({ revision: z.null(), ...chainFeed })]),
  sql: (p) => changesAfter(p.after, p.most, sql.fragment`${FEED}, p.chain as head_chain`),
});

const place = { place: z.bigint(), entered: z.string() };
const news = z.union([
  changeRow.extend({ ...place, ...feed }),
  z.object({ ...place, ...feed, project_id: z.string(), revision: z.null() }),
  z.object({ ...place, project_id: z.null() }),
]);
export type NewsRow = z.infer<typeof news>;

/** The news of many watched projects at once. A null `after` asks for nothing but where the feed stands. */
export const pollChanges = readEach({
  name: 'changes.poll',
  need: 'member',
  params: { after: 'int8[]', most: 'int4[]' },
  row: news,
  sql: () => changesAfter(sql.fragment`asked.after`, sql.fragment`asked.most`),
});

/** Bytes a timeline reads from the database before its page ends; more would not fit the answer. */
const PAGE_BYTES = sql.literalValue(String(3 * 1024 * 1024));

// What an item can be: the columns of all four stand in one row.
const execution = prefixed('execution_', executionRow);
const version = prefixed('version_', VersionRow);
const exported = prefixed('export_', seenExportRow);
const change = prefixed('change_', changeRow);

const of = (alias: string) => (name: string) => sql.fragment`${sql.identifier([alias, name])}`;
const ofExport = (name: string): Fragment => (name === 'seen_status' ? sql.fragment`export_status(e)` : of('e')(name));

const placed = { revision: z.bigint(), fits: z.boolean() };
const item = ({ revision, fits }: { revision: bigint; fits: boolean }) => ({
  revision,
  fits,
  execution: null,
  version: null,
  export: null,
  change: null,
});

/** An item of a timeline: exactly one of the four is there. */
const timelineRow = z.discriminatedUnion('item', [
  z
    .object({ item: z.literal('execution'), ...placed, ...execution.shape })
    .transform((row) => ({ ...item(row), execution: execution.of(row) })),
  z
    .object({ item: z.literal('version'), ...placed, ...version.shape })
    .transform((row) => ({ ...item(row), version: version.of(row) })),
  z
    .object({ item: z.literal('export'), ...placed, ...exported.shape })
    .transform((row) => ({ ...item(row), export: exported.of(row) })),
  z
    .object({ item: z.literal('change'), ...placed, ...change.shape })
    .transform((row) => ({ ...item(row), change: change.of(row) })),
]);
export type TimelineRow = z.infer<typeof timelineRow>;

/**
 * All that one correlation id caused, by the revision at which it came to be, after a revision; as many as fit into a page,
 * and the one it ends before. A change that made one of the items is not told again.
 */
export const getTimeline = read({
  name: 'changes.timeline',
  need: 'member',
  params: { correlation: 'uuid', after: 'int8', most: 'int4' },
  row: timelineRow,
  sql: (p) => sql.fragment`
select coalesce(r.project_id, v.project_id, e.project_id, c.project_id) as project_id, k.item, k.revision, k.fits,
  ${execution.columns(of('r'))}, ${version.columns(of('v'))}, ${exported.columns(ofExport)}, ${change.columns(of('c'))}
from (
  select k.*, k.bytes <= ${PAGE_BYTES}::bigint or k.bytes = k.weight as fits
  from (
    select k.*, sum(k.weight) over (order by k.revision) as bytes
    from (
      (select 'execution' as item, r.project_revision as revision, r.id, null::text as document_type, null::integer as version,
         octet_length(r.error_message) + octet_length(r.cancel_reason) + 3072 as weight
       from agent_executions r
       where r.project_id = scope.project_id and r.correlation_id = ${p.correlation} and r.project_revision > ${p.after}
       order by r.project_revision limit ${p.most})
      union all
      (select 'version', v.project_revision, null, v.document_type, v.version,
         octet_length(v.metadata::text) + octet_length(v.reason) + 1536
       from document_versions v
       where v.project_id = scope.project_id and v.correlation_id = ${p.correlation} and v.project_revision > ${p.after}
       order by v.project_revision limit ${p.most})
      union all
      (select 'export', e.created_revision, e.id, null, null, ${EXPORT_BYTES}
       from exports e
       where e.project_id = scope.project_id and e.correlation_id = ${p.correlation} and e.created_revision > ${p.after}
       order by e.created_revision limit ${p.most})
      union all
      (select 'change', c.revision, null, null, null, 1536
       from changes c
       where c.project_id = scope.project_id and c.correlation_id = ${p.correlation} and c.revision > ${p.after}
         and c.kind <> 'VERSION_APPENDED'
         -- One that was removed since is told by its change alone.
         and not (c.kind = 'EXPORT_CREATED' and exists (
           select from exports e where e.project_id = scope.project_id and e.id = c.resource_id))
         -- A run can belong to another correlation id than the call that made it.
         and not (c.kind = 'EXECUTION_CREATED' and exists (
           select from agent_executions r
           where r.project_id = scope.project_id and r.id = c.resource_id and r.correlation_id = ${p.correlation}))
       order by c.revision limit ${p.most})
      order by revision limit ${p.most}
    ) as k
  ) as k
  where k.bytes - k.weight <= ${PAGE_BYTES}::bigint
) as k
left join agent_executions r on k.item = 'execution' and r.project_id = scope.project_id and r.id = k.id
left join document_versions v on k.item = 'version' and v.project_id = scope.project_id
  and v.document_type = k.document_type and v.version = k.version
left join exports e on k.item = 'export' and e.project_id = scope.project_id and e.id = k.id
left join changes c on k.item = 'change' and c.project_id = scope.project_id and c.revision = k.revision
order by k.revision`,
});
