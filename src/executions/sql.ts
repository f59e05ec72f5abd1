import type { FragmentSqlToken } from 'slonik';
import { z } from 'zod';
import { prefixed } from '../db/prefixed.ts';
import {
  EACH_RESULT,
  MOST_TOGETHER_BYTES,
  pointRead,
  type Refs,
  read,
  sql,
  statement,
  write,
} from '../db/statement.ts';
import { ENTRY_TYPES } from '../documents/entries.ts';
import { VersionRow } from '../documents/version.ts';

/** A run without its payloads. */
export const executionRow = z.object({
  project_id: z.string(),
  id: z.string(),
  agent_type: z.string(),
  correlation_id: z.string(),
  parent_execution_id: z.string().nullable(),
  attempt: z.number(),
  status: z.string(),
  error_message: z.string(),
  cancel_reason: z.string(),
  model: z.string(),
  input_tokens: z.bigint(),
  output_tokens: z.bigint(),
  cost_micros: z.bigint(),
  created_by: z.string().nullable(),
  caller: z.string(),
  create_time: z.bigint(),
  update_time: z.bigint(),
  start_time: z.bigint().nullable(),
  complete_time: z.bigint().nullable(),
  lease_expire_time: z.bigint().nullable(),
  row_version: z.bigint(),
});
export type ExecutionRow = z.infer<typeof executionRow>;

/** A run with the token of its lease; null unless RUNNING. */
const heldRow = executionRow.extend({ lease_token: z.string().nullable() });

const payload = { type: z.string().nullable(), data: z.instanceof(Buffer).nullable() };
const startedRow = heldRow.extend({ input_type: payload.type, input: payload.data });
export type StartedRow = z.infer<typeof startedRow>;
const wholeRow = executionRow.extend({
  input_type: payload.type,
  input: payload.data,
  output_type: payload.type,
  output: payload.data,
});

const COLUMNS = sql.join(
  Object.keys(executionRow.shape).map((name) => sql.fragment`e.${sql.identifier([name])}`),
  sql.fragment`, `,
);
const WITH_INPUT = sql.fragment`(w.result).*, w.input_type, w.input`;

/** Whether a run's payloads are small enough to be read together with others'; their lengths are known without reading them. */
const SMALL = sql.fragment`coalesce(octet_length(i.data), 0) + coalesce(octet_length(o.data), 0) <= ${sql.literalValue(String(MOST_TOGETHER_BYTES))}`;
const whole = (column: FragmentSqlToken, together: boolean): FragmentSqlToken =>
  together ? sql.fragment`case when ${SMALL} then ${column} end` : column;

/** A run with its input and output. */
export const getExecution = pointRead({
  name: 'executions.get',
  need: 'member',
  params: { id: 'uuid' },
  row: wholeRow,
  sql: (p, together) => sql.fragment`
select ${COLUMNS}, i.content_type as input_type, ${whole(sql.fragment`i.data`, together)} as input,
  o.content_type as output_type, ${whole(sql.fragment`o.data`, together)} as output${together ? sql.fragment`, not (${SMALL}) as apart` : sql.fragment``}
from agent_executions e
left join execution_payloads i on i.project_id = scope.project_id and i.execution_id = e.id and i.kind = 'input'
left join execution_payloads o on o.project_id = scope.project_id and o.execution_id = e.id and o.kind = 'output'
where e.project_id = scope.project_id and e.id = ${p.id}`,
});

const FILTERS = {
  statuses: 'text[]',
  agent_type: 'text?',
  after: 'timestamptz?',
  until: 'timestamptz?',
  before: 'uuid',
  most: 'int4',
} as const;

/** Comes after every id: where the first page begins. */
export const LAST_ID = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

/**
 * Newest first, before a run; null, and no statuses, ask for all. Runs started from `after` on and before `until`. The inner
 * query is walked in the order of an index and filtered outside: with the filters inside, whose selectivity nobody knows,
 * the planner reads and sorts the whole project for a page.
 */
const listed = (p: Refs<typeof FILTERS>, narrowed: FragmentSqlToken) => sql.fragment`
select ${COLUMNS} from (
  select * from agent_executions
  where project_id = scope.project_id and id < ${p.before} ${narrowed}
  order by id desc offset 0) as e
where (${p.statuses} = '{}' or e.status = any (${p.statuses}))
  and (${p.agent_type} is null or e.agent_type = ${p.agent_type})
  and (${p.after} is null or e.start_time >= ${p.after}) and (${p.until} is null or e.start_time < ${p.until})
limit ${p.most}`;

export const listExecutions = read({
  name: 'executions.list',
  need: 'member',
  params: FILTERS,
  row: executionRow,
  sql: (p) => listed(p, sql.fragment``),
});

/** The same of one correlation id. */
export const listCorrelated = read({
  name: 'executions.list_correlated',
  need: 'member',
  params: { ...FILTERS, correlation: 'uuid' },
  row: executionRow,
  sql: (p) => listed(p, sql.fragment`and correlation_id = ${p.correlation}`),
});

/** Parallel arrays, one element a run: see `create_executions`. `entry_field` is null for a single one. */
export const createExecutions = write({
  name: 'executions.create',
  params: {
    project: 'uuid',
    entries: 'jsonb',
    tails: 'uuid[]',
    lease_seconds: 'int4[]',
    input_types: 'text[]',
    inputs: 'bytea[]',
    output_types: 'text[]',
    outputs: 'bytea[]',
    entry_field: 'text?',
  },
  row: heldRow,
  ...EACH_RESULT,
  sql: (p, call) => sql.fragment`create_executions(${call}, ${p.project}, ${p.entries}, ${p.tails}, ${p.lease_seconds},
  ${p.input_types}, ${p.inputs}, ${p.output_types}, ${p.outputs}, ${p.entry_field})`,
});

export const startExecution = write({
  name: 'executions.start',
  params: { project: 'uuid', id: 'uuid', lease_seconds: 'int4' },
  row: startedRow,
  select: WITH_INPUT,
  sql: (p, call) => sql.fragment`start_execution(${call}, ${p.project}, ${p.id}, ${p.lease_seconds})`,
});

/** Null when nothing waits. No agent types ask for all. */
export const claimExecution = write({
  name: 'executions.claim',
  params: { agent_types: 'text[]', lease_seconds: 'int4' },
  row: z.union([startedRow, z.object({ id: z.null() }).transform(() => null)]),
  select: WITH_INPUT,
  sql: (p, call) => sql.fragment`claim_execution(${call}, ${p.agent_types}, ${p.lease_seconds})`,
});

export const heartbeatExecution = write({
  name: 'executions.heartbeat',
  params: { project: 'uuid', id: 'uuid', token: 'text', lease_seconds: 'int4' },
  row: executionRow,
  sql: (p, call) => sql.fragment`heartbeat_execution(${call}, ${p.project}, ${p.id}, ${p.token}, ${p.lease_seconds})`,
});

/** FAILED takes the lease's token, CANCELLED none. */
export const endExecution = write({
  name: 'executions.end',
  params: { project: 'uuid', id: 'uuid', status: 'text', token: 'text?', explanation: 'text' },
  row: executionRow,
  sql: (p, call) =>
    sql.fragment`end_execution(${call}, ${p.project}, ${p.id}, ${p.status}, ${p.token}, ${p.explanation})`,
});

// A version's columns keep their names; the run's stand apart.
const run = prefixed('run_', executionRow);

/** A row for each version, or one without: the run, and the version's columns as they are. */
export const completeExecution = write({
  name: 'executions.complete',
  params: {
    project: 'uuid',
    id: 'uuid',
    token: 'text',
    output_type: 'text?',
    output: 'bytea?',
    model: 'text',
    input_tokens: 'int8',
    output_tokens: 'int8',
    cost_micros: 'int8',
    ...ENTRY_TYPES,
  },
  row: z.union([
    VersionRow.extend(run.shape).transform((row) => ({ run: run.of(row), version: row })),
    z.object({ ...run.shape, id: z.null() }).transform((row) => ({ run: run.of(row), version: null })),
  ]),
  select: sql.fragment`${run.columns((name) => sql.fragment`(w.result).${sql.identifier([name])}`)}, each.*`,
  join: sql.fragment`left join lateral unnest(w.versions) as each on true`,
  sql: (p, call) => sql.fragment`complete_execution(${call}, ${p.project}, ${p.id}, ${p.token}, ${p.output_type},
  ${p.output}, ${p.model}, ${p.input_tokens}, ${p.output_tokens}, ${p.cost_micros}, ${p.document_types}, ${p.contents},
  ${p.hashes}, ${p.metadatas}, ${p.reasons}, ${p.readabilities}, ${p.grammars}, ${p.expected}, ${p.executions})`,
});

const count = z.object({ done: z.number() });

/** Ends what is due in one project, and tells which; 0 when nothing is. A failure tells of a project that was left for later. */
export const sweep = statement({
  name: 'executions.sweep',
  params: { most: 'int4' },
  row: count.extend({ failure: z.string().nullable(), project_id: z.string().nullable() }),
  // The function is still in the scope of the project in which it ended something.
  sql: (p) => sql.fragment`
select swept as done, failure, case when swept > 0 then current_setting('jeex.project_id', true) end as project_id
from sweep(${p.most})`,
});

/** Purges one project whose time has come; 0 when there is none. */
export const purgeDue = statement({
  name: 'projects.purge_due',
  params: {},
  row: count,
  sql: () => sql.fragment`select purge_due() as done`,
});

/** Forgets replies that are kept no longer; 0 when there are none. */
export const forgetReplies = statement({
  name: 'requests.forget',
  params: { most: 'int4' },
  row: count,
  sql: (p) => sql.fragment`select forget_replies(${p.most}) as done`,
});

/** Goes on with the pass that removes what is kept no longer, in days; changes are kept for ever where it says null. */
export const retain = statement({
  name: 'retention.retain',
  params: { payload_days: 'int4', export_days: 'int4', change_days: 'int4?', most: 'int4' },
  row: z.object({ again: z.boolean(), removed: z.bigint(), failure: z.string().nullable() }),
  sql: (p) => sql.fragment`select again, removed, failure from retain(make_interval(days => ${p.payload_days}),
  make_interval(days => ${p.export_days}), make_interval(days => ${p.change_days}), ${p.most})`,
});
