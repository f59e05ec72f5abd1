import { randomUUID } from 'node:crypto';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Timestamp, TimestampSchema } from '@bufbuild/protobuf/wkt';
import {
  type AgentExecutionSchema,
  type ExecutionEntry,
  ExecutionStatus,
  type Payload,
} from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { invalidField } from '../refusal.ts';
import { duration, enumNames, etag, optionalTimestamp, timestamp, timestampText } from '../rpc/convert.ts';
import { type PayloadKind, payloadOf } from '../sealing/identity.ts';
import type { KeyRing } from '../sealing/ring.ts';
import { attemptOf, DEFAULT_CONTENT_TYPE, durationOf, earlyField, leaseSeconds, timesFault } from './executions.ts';
import type { ExecutionRow } from './sql.ts';

export const executionStatus = enumNames(ExecutionStatus);

type Execution = MessageInitShape<typeof AgentExecutionSchema>;

/** What a payload is to the database: both null when there is none. */
interface StoredPayload {
  readonly type: string | null;
  readonly data: Buffer | null;
}

/** The payloads of runs in the database, as the ring seals and opens them. */
export const payloadsWith = (ring: KeyRing) => ({
  /** A payload of a request, to be stored. @param run its id, or the tail of one to be made */
  sealed: (payload: Payload | undefined, project: string, run: string, kind: PayloadKind): StoredPayload =>
    payload === undefined
      ? { type: null, data: null }
      : {
          type: payload.contentType || DEFAULT_CONTENT_TYPE,
          data: ring.seal(payload.data, payloadOf(project, run, kind)),
        },
  /** A stored payload, to be answered. @throws Error when it does not open */
  opened: ({ type, data }: StoredPayload, run: { project_id: string; id: string }, kind: PayloadKind) =>
    type === null || data === null
      ? undefined
      : { contentType: type, data: new Uint8Array(ring.open(data, payloadOf(run.project_id, run.id, kind))) },
});
export type Payloads = ReturnType<typeof payloadsWith>;

/** A payload of the request itself, as it is answered. */
export const ownPayload = (payload: Payload | undefined) =>
  payload && { contentType: payload.contentType || DEFAULT_CONTENT_TYPE, data: payload.data };

/** A row of `agent_executions` as the wire's AgentExecution, with the payloads it is given. */
export const toExecution = (row: ExecutionRow, payloads: Pick<Execution, 'input' | 'output'> = {}): Execution => {
  const took = durationOf(row.start_time, row.complete_time);
  return {
    id: row.id,
    projectId: row.project_id,
    agentType: row.agent_type,
    correlationId: row.correlation_id,
    parentExecutionId: row.parent_execution_id ?? '',
    attempt: row.attempt,
    status: executionStatus.value(row.status),
    errorMessage: row.error_message,
    cancelReason: row.cancel_reason,
    model: row.model,
    inputTokens: row.input_tokens,
    outputTokens: row.output_tokens,
    costMicros: row.cost_micros,
    createdBy: row.created_by ?? '',
    caller: row.caller,
    createTime: timestamp(row.create_time),
    updateTime: timestamp(row.update_time),
    startTime: optionalTimestamp(row.start_time),
    completeTime: optionalTimestamp(row.complete_time),
    duration: took === null ? undefined : duration(took),
    leaseExpireTime: optionalTimestamp(row.lease_expire_time),
    etag: etag(row.row_version),
    ...payloads,
  };
};

/** A time that nothing is compared with but times of whole microseconds, rounded up to one: the comparison stays exact. */
export const roundedUp = ({ seconds, nanos }: Timestamp): Timestamp => {
  const micros = Math.ceil(nanos / 1000);
  const whole = micros === 1_000_000;
  return create(TimestampSchema, { seconds: seconds + (whole ? 1n : 0n), nanos: whole ? 0 : micros * 1000 });
};

/**
 * Runs to record in a project as the parallel arrays that `create_executions` takes.
 * @param entryField the request's field that holds them; null for a single one
 * @throws INVALID_FIELD when a run's times contradict its status, or it has what only comes later
 */
export const recordParams = (
  payloads: Payloads,
  project: string,
  entries: readonly Omit<ExecutionEntry, '$typeName'>[],
  entryField: string | null,
) => {
  const parts = entries.map(({ input, output }) => {
    const tail = randomUUID();
    return {
      tail,
      input: payloads.sealed(input, project, tail, 'input'),
      output: payloads.sealed(output, project, tail, 'output'),
    };
  });
  return {
    project,
    tails: parts.map(({ tail }) => tail),
    entries: JSON.stringify(entries.map((entry, index) => columnsOf(entry, entryField && `${entryField}[${index}].`))),
    lease_seconds: entries.map((entry) => leaseSeconds(entry.leaseSeconds)),
    input_types: parts.map(({ input }) => input.type),
    inputs: parts.map(({ input }) => input.data),
    output_types: parts.map(({ output }) => output.type),
    outputs: parts.map(({ output }) => output.data),
    entry_field: entryField,
  };
};

const columnsOf = (entry: Omit<ExecutionEntry, '$typeName'>, path: string | null) => {
  const at = (field: string) => `${path ?? ''}${field}`;
  const start = entry.startTime ? timestampText(entry.startTime, at('start_time')) : null;
  const complete = entry.completeTime ? timestampText(entry.completeTime, at('complete_time')) : null;
  const status = executionStatus.text(entry.status);
  const fault = timesFault({ status, start, complete, leaseSeconds: entry.leaseSeconds });
  if (fault !== null) throw invalidField(at(fault.field), fault.description);
  const early = earlyField(status, entry);
  if (early !== null) throw invalidField(at(early), `must be absent while ${status}`);
  return {
    agent_type: entry.agentType,
    correlation_id: entry.correlationId || null,
    parent_execution_id: entry.parentExecutionId || null,
    attempt: attemptOf(entry.attempt),
    status,
    error_message: entry.errorMessage,
    cancel_reason: entry.cancelReason,
    model: entry.model,
    // As text: JSON's numbers end at 2^53.
    input_tokens: String(entry.inputTokens),
    output_tokens: String(entry.outputTokens),
    cost_micros: String(entry.costMicros),
    start_time: start,
    complete_time: complete,
  };
};
