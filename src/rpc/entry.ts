import { randomUUIDv7 } from 'node:crypto';
import type { RpcSystem } from '../telemetry/measurements.ts';
import { beginTrace, type CallTrace, traceparentOf } from '../telemetry/spans.ts';
import { noTiming, serverTiming, type Timing } from '../telemetry/timing.ts';
import type { Caller } from './access.ts';
import { createController } from './controller.ts';
import type { Failure } from './errors.ts';
import type { Header } from './pipeline.ts';
import type { MethodPlan } from './plan.ts';
import type { Subject } from './subject.ts';

export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** A call from its headers to its end, as the pipeline keeps it. */
export interface Entry {
  readonly plan: MethodPlan;
  readonly system: RpcSystem;
  readonly header: Header;
  readonly correlationId: string;
  /** False when the client sent one that is no UUID; then `correlationId` is a new one, so that the error has one. */
  readonly correlationValid: boolean;
  /** When the call began, by `performance.now()`. */
  readonly began: number;
  readonly controller: Pick<AbortController, 'signal' | 'abort'>;
  readonly trace: CallTrace;
  readonly timing: Timing;
  /** Null until authentication has answered. */
  caller: Caller | null;
  actor: string | null;
  /** What the request is about; for one that names no project, those of its answer. */
  subject: Subject;
  admitted: boolean;
  /** Whether the request has come in. */
  whole: boolean;
  /** Whether the handler has been called. */
  started: boolean;
  settled: boolean;
  /** Ends a call whose request is on its way; null once that is whole. */
  cut: ((failure: Failure) => void) | null;
  /** What the call has failed with; null while it runs, and when it was answered. */
  failure: Failure | null;
  /** Since when a stream waits for its handler's next message, by `performance.now()`; null while it sends, and for unary calls. */
  waitingSince: number | null;
  /** Whether a stream has sent a message. */
  opened: boolean;
  stopTimer: (() => void) | null;
}

const NOTHING: Subject = { projects: [], users: [] };

/** Begins a call. */
export const enter = (plan: MethodPlan, system: RpcSystem, header: Header, cut: Entry['cut']): Entry => {
  const sent = header('x-correlation-id');
  const correlationValid = sent === undefined || UUID.test(sent);
  const correlationId = sent !== undefined && correlationValid ? sent.toLowerCase() : randomUUIDv7();
  return {
    plan,
    system,
    header,
    correlationId,
    correlationValid,
    began: performance.now(),
    controller: createController(),
    trace: beginTrace(system, plan.name, correlationId, header),
    timing: noTiming(),
    caller: null,
    actor: null,
    subject: NOTHING,
    admitted: false,
    whole: false,
    started: false,
    settled: false,
    cut,
    failure: null,
    waitingSince: null,
    opened: false,
    stopTimer: null,
  };
};

/** How long a call has taken, in milliseconds. */
export const elapsedMs = ({ began }: Entry): number => performance.now() - began;

/** The header `server-timing` of a call that ends now. */
export const timingOf = (entry: Entry): string =>
  serverTiming(entry.timing, elapsedMs(entry), traceparentOf(entry.trace));
