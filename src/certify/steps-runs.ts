import { randomUUID } from 'node:crypto';
import { AgentExecutionService } from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ANY_PROJECT, type Asked, type Seen } from './ledger.ts';
import { codeOf } from './marks.ts';
import { anyType, entriesOf, readerOf, type Step, writerOf } from './steps-documents.ts';
import { PENDING, RUNNING } from './timeline.ts';
import type { Worker } from './worker.ts';
import { LEASE_SECONDS, type Surroundings } from './world.ts';

const { method } = AgentExecutionService;

/** Names the runs of one certification, so that a claim takes nobody else's. */
const agentTypeOf = ({ shared }: Worker): string => `certify-${shared.marks.run}`;

const inputOf = ({ shared }: Worker, code: number) => ({
  contentType: 'text/plain',
  data: Buffer.from(shared.look.input(code)),
});

const createRun: Step = async (worker, { place, pending, running, runs }) => {
  const { look } = worker.shared;
  const start = worker.random.chance(0.3);
  const done = await worker.write({
    asked: { kind: 'createRun', project: place.index, actor: writerOf(worker), target: start ? RUNNING : PENDING },
    method: method.createExecution,
    request: (operation) => ({
      projectId: place.id,
      agentType: agentTypeOf(worker),
      attempt: 1,
      input: inputOf(worker, codeOf(operation, 0)),
      ...(start && { start, leaseSeconds: LEASE_SECONDS }),
    }),
    see: ({ execution }) => (execution ? [look.run(place, execution, { input: true })] : []),
  });
  if (!done) return;
  const known = { code: codeOf(done.operation, 0), id: done.message.execution?.id ?? '' };
  runs.put(known, worker.random);
  if (start) running.put({ ...known, token: done.message.leaseToken }, worker.random);
  else pending.put(known, worker.random);
};

const batchRuns: Step = async (worker, { place, pending, runs }) => {
  const { look } = worker.shared;
  const count = 2 + worker.random.below(3);
  const done = await worker.write({
    asked: { kind: 'batchRuns', project: place.index, actor: writerOf(worker), count, target: PENDING },
    method: method.batchCreateExecutions,
    request: (operation) => ({
      projectId: place.id,
      executions: Array.from({ length: count }, (_, entry) => ({
        agentType: agentTypeOf(worker),
        attempt: entry + 1,
        input: inputOf(worker, codeOf(operation, entry)),
        status: PENDING,
      })),
    }),
    see: ({ executions }) => executions.map((run) => look.run(place, run, {})),
  });
  for (const [entry, { id }] of (done?.message.executions ?? []).entries()) {
    const known = { code: codeOf(done?.operation ?? 0, entry), id };
    pending.put(known, worker.random);
    runs.put(known, worker.random);
  }
};

const startRun: Step = async (worker, around) => {
  const { place, pending, running } = around;
  const { look } = worker.shared;
  const run = pending.take(worker.random);
  if (run === undefined) return createRun(worker, around);
  const done = await worker.write({
    asked: { kind: 'startRun', project: place.index, actor: writerOf(worker), target: run.code },
    method: method.startExecution,
    request: () => ({ projectId: place.id, id: run.id, leaseSeconds: LEASE_SECONDS }),
    see: ({ execution }) => (execution ? [look.run(place, execution, { input: true })] : []),
  });
  if (done) running.put({ ...run, token: done.message.leaseToken }, worker.random);
};

/** Of whichever project: the oldest one that waits. */
const claimRun: Step = async (worker, around) => {
  const { look, places, marks } = worker.shared;
  const done = await worker.write({
    asked: { kind: 'claimRun', project: ANY_PROJECT, actor: 'system' },
    method: method.claimExecution,
    request: () => ({ agentTypes: [agentTypeOf(worker)], leaseSeconds: LEASE_SECONDS }),
    see: ({ execution }) => {
      const place = places.find(({ id }) => id === execution?.projectId) ?? around.place;
      return execution ? [look.run(place, execution, { input: true })] : [];
    },
  });
  const run = done?.message.execution;
  if (run?.projectId !== around.place.id) return;
  const created = marks.readCorrelation(run.correlationId)?.operation ?? 0;
  const held = { code: codeOf(created, run.attempt - 1), id: run.id, token: done?.message.leaseToken ?? '' };
  around.running.put(held, worker.random);
};

const heartbeat: Step = async (worker, { place, running }) => {
  const run = running.look(worker.random);
  if (run === undefined) return;
  const forged = worker.random.chance(0.2);
  const token = forged ? randomUUID() : run.token;
  const asked: Asked = { kind: 'heartbeat', project: place.index, actor: writerOf(worker), target: run.code };
  const request = { projectId: place.id, id: run.id, leaseToken: token, leaseSeconds: LEASE_SECONDS };
  if (!forged) {
    return worker.write({ asked, method: method.heartbeatExecution, request: () => request, see: () => [] });
  }
  const reason = await worker.provoke(method.heartbeatExecution, request, { actor: worker.actor(asked) });
  if (reason === 'OK') worker.shared.faults.add('lease', `run ${run.code}: a heartbeat with a forged token was taken`);
};

const completeRun: Step = async (worker, around) => {
  const { place, running } = around;
  const { look } = worker.shared;
  const run = running.take(worker.random);
  if (run === undefined) return claimRun(worker, around);
  const type = anyType(worker);
  const count = worker.random.below(3);
  return worker.write({
    asked: { kind: 'completeRun', project: place.index, actor: writerOf(worker), type, count, target: run.code },
    method: method.completeExecution,
    request: (operation) => ({
      projectId: place.id,
      id: run.id,
      leaseToken: run.token,
      output: { contentType: 'text/plain', data: Buffer.from(look.output(operation)) },
      versions: entriesOf(worker, operation, type, count),
    }),
    see: ({ execution, versions }): readonly Seen[] => [
      ...(execution ? [look.run(place, execution, { output: true })] : []),
      ...versions.map((version) => look.version(place, 'version', version, false)),
    ],
  });
};

const failRun: Step = async (worker, { place, running }) => {
  const run = running.take(worker.random);
  if (run === undefined) return;
  return worker.write({
    asked: { kind: 'failRun', project: place.index, actor: writerOf(worker), target: run.code },
    method: method.failExecution,
    request: () => ({ projectId: place.id, id: run.id, leaseToken: run.token, errorMessage: 'certify' }),
    see: ({ execution }) => (execution ? [worker.shared.look.run(place, execution, {})] : []),
  });
};

const cancelRun: Step = async (worker, { place, pending, running }: Surroundings) => {
  const run = (worker.random.chance(0.5) ? pending : running).look(worker.random);
  if (run === undefined) return;
  return worker.write({
    asked: { kind: 'cancelRun', project: place.index, actor: writerOf(worker), target: run.code },
    method: method.cancelExecution,
    request: () => ({ projectId: place.id, id: run.id, cancelReason: 'certify' }),
    see: ({ execution }) => (execution ? [worker.shared.look.run(place, execution, {})] : []),
  });
};

const getRun: Step = async (worker, { place, runs }) => {
  const run = runs.look(worker.random);
  if (run === undefined) return;
  return worker.read({
    asked: { kind: 'getRun', project: place.index, actor: readerOf(worker), target: run.code },
    method: method.getExecution,
    request: { projectId: place.id, id: run.id },
    see: ({ execution }) =>
      execution ? [worker.shared.look.run(place, execution, { input: true, output: true })] : [],
  });
};

export const RUN_STEPS: readonly (readonly [number, Step])[] = [
  [5, createRun],
  [1, batchRuns],
  [3, startRun],
  [4, claimRun],
  [2, heartbeat],
  [5, completeRun],
  [1, failRun],
  [1, cancelRun],
  [6, getRun],
];
