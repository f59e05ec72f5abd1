import { type DescMessage, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { callParams } from '../db/statement.ts';
import { entryParams } from '../documents/entries.ts';
import { toVersion } from '../documents/version.ts';
import {
  AgentExecutionSchema,
  type AgentExecutionService,
  BatchCreateExecutionsRequestSchema,
  CompleteExecutionRequestSchema,
  ExecutionStatus,
} from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { type Refusal, refusalOf } from '../refusal.ts';
import type { Context } from '../rpc/context.ts';
import { oneOr, timestampText } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { cutPage, encodedSize, pageSize } from '../rpc/page.ts';
import { leaseSeconds, MAX_REQUEST_BYTES } from './executions.ts';
import * as statements from './sql.ts';
import {
  executionStatus,
  ownPayload,
  type Payloads,
  payloadsWith,
  recordParams,
  roundedUp,
  toExecution,
} from './wire.ts';

const notFound = (): Refusal => refusalOf('EXECUTION_NOT_FOUND');

/** @throws CONTENT_TOO_LARGE for a request whose answer might not fit a message */
const refuseLarge = <D extends DescMessage>(desc: D, request: MessageShape<D>, field: string): void => {
  const bytes = toBinary(desc, request).byteLength;
  if (bytes > MAX_REQUEST_BYTES) {
    const description = `the whole request has ${bytes} bytes; ${MAX_REQUEST_BYTES} is the most`;
    throw refusalOf('CONTENT_TOO_LARGE', { field, description });
  }
};

/** A run that was just started, with its input, and the token of its lease. */
const startedWith = (payloads: Payloads, row: statements.StartedRow) => ({
  execution: toExecution(row, { input: payloads.opened({ type: row.input_type, data: row.input }, row, 'input') }),
  leaseToken: row.lease_token ?? '',
});

export const executionHandlers = ({ db, pager, sealing }: Context): ServiceHandlers<typeof AgentExecutionService> => {
  const payloads = payloadsWith(sealing.ring);
  const started = (row: statements.StartedRow) => startedWith(payloads, row);
  return {
    createExecution: async (request, call) => {
      const entry = {
        ...request,
        status: request.start ? ExecutionStatus.RUNNING : ExecutionStatus.PENDING,
        leaseSeconds: leaseSeconds(request.leaseSeconds),
        errorMessage: '',
        cancelReason: '',
        model: '',
        inputTokens: 0n,
        outputTokens: 0n,
        costMicros: 0n,
      };
      const params = { ...recordParams(payloads, request.projectId, [entry], null), ...callParams(call) };
      const row = oneOr(await db.run(statements.createExecutions, params, call), notFound);
      return { execution: toExecution(row, { input: ownPayload(request.input) }), leaseToken: row.lease_token ?? '' };
    },

    startExecution: async (request, call) => {
      const params = {
        project: request.projectId,
        id: request.id,
        lease_seconds: leaseSeconds(request.leaseSeconds),
        ...callParams(call),
      };
      return started(oneOr(await db.run(statements.startExecution, params, call), notFound));
    },

    claimExecution: async (request, call) => {
      const params = {
        agent_types: request.agentTypes,
        lease_seconds: leaseSeconds(request.leaseSeconds),
        ...callParams(call),
      };
      const [row] = await db.run(statements.claimExecution, params, call);
      return row ? started(row) : {};
    },

    heartbeatExecution: async (request, call) => {
      const params = {
        project: request.projectId,
        id: request.id,
        token: request.leaseToken,
        lease_seconds: leaseSeconds(request.leaseSeconds),
        ...callParams(call),
      };
      return {
        execution: toExecution(oneOr(await db.run(statements.heartbeatExecution, params, call), notFound)),
      };
    },

    completeExecution: async (request, call) => {
      refuseLarge(CompleteExecutionRequestSchema, request, 'versions');
      const output = payloads.sealed(request.output, request.projectId, request.id, 'output');
      const entries = request.versions.map((entry) => ({ ...entry, executionId: entry.executionId || request.id }));
      const params = {
        project: request.projectId,
        id: request.id,
        token: request.leaseToken,
        output_type: output.type,
        output: output.data,
        model: request.model,
        input_tokens: request.inputTokens,
        output_tokens: request.outputTokens,
        cost_micros: request.costMicros,
        ...entryParams(entries),
        ...callParams(call),
      };
      const rows = await db.run(statements.completeExecution, params, call);
      return {
        execution: toExecution(oneOr(rows, notFound).run, { output: ownPayload(request.output) }),
        versions: rows.flatMap(({ version }) => (version === null ? [] : [toVersion(version)])),
      };
    },

    failExecution: async (request, call) => {
      const params = {
        project: request.projectId,
        id: request.id,
        status: 'FAILED',
        token: request.leaseToken,
        explanation: request.errorMessage,
        ...callParams(call),
      };
      return { execution: toExecution(oneOr(await db.run(statements.endExecution, params, call), notFound)) };
    },

    cancelExecution: async (request, call) => {
      const params = {
        project: request.projectId,
        id: request.id,
        status: 'CANCELLED',
        token: null,
        explanation: request.cancelReason,
        ...callParams(call),
      };
      return { execution: toExecution(oneOr(await db.run(statements.endExecution, params, call), notFound)) };
    },

    getExecution: async (request, call) => {
      const params = { project: request.projectId, id: request.id, actor: call.actor };
      const row = oneOr(await db.run(statements.getExecution, params, call), notFound);
      const input = payloads.opened({ type: row.input_type, data: row.input }, row, 'input');
      const output = payloads.opened({ type: row.output_type, data: row.output }, row, 'output');
      return { execution: toExecution(row, { input, output }) };
    },

    listExecutions: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const after = pager.read(call, request, request.pageToken);
      const params = {
        project: request.projectId,
        actor: call.actor,
        statuses: request.statuses.map(executionStatus.text),
        agent_type: request.agentType || null,
        after: request.startedAfter ? timestampText(roundedUp(request.startedAfter), 'started_after') : null,
        until: request.startedBefore ? timestampText(roundedUp(request.startedBefore), 'started_before') : null,
        before: after === null ? statements.LAST_ID : String(after[0]),
        most: limit + 1,
      };
      const rows = request.correlationId
        ? await db.run(statements.listCorrelated, { ...params, correlation: request.correlationId }, call)
        : await db.run(statements.listExecutions, params, call);
      const executions = rows.map((row) => toExecution(row));
      const page = cutPage(
        executions,
        limit,
        (execution) => encodedSize(AgentExecutionSchema, execution),
        (execution) => [execution.id ?? ''],
      );
      return { executions: [...page.rows], nextPageToken: pager.write(call, request, page.next) };
    },

    batchCreateExecutions: async (request, call) => {
      refuseLarge(BatchCreateExecutionsRequestSchema, request, 'executions');
      const params = {
        ...recordParams(payloads, request.projectId, request.executions, 'executions'),
        ...callParams(call),
      };
      const rows = await db.run(statements.createExecutions, params, call);
      return {
        executions: rows.map((row) => toExecution(row)),
        leaseTokens: rows.map((row) => row.lease_token ?? ''),
      };
    },
  };
};
