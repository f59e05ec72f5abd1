import type { DescMethod } from '@bufbuild/protobuf';
import type { CallTrace } from '../telemetry/spans.ts';
import type { Timing } from '../telemetry/timing.ts';

/** What makes a mutation idempotent: the caller's request id, and what is derived from the request it stands for. */
export interface RequestIdentity {
  readonly id: string;
  /** A MAC of the canonical request without its id: tells the same request from another one. */
  readonly hash: Buffer;
  /** 32 bytes that seal the stored reply: who lacks the service's secret, or cannot repeat the request, cannot read it. */
  readonly key: Buffer;
}

/** One call, as every handler sees it: who asks, for whom, and until when. */
export interface Call {
  readonly method: DescMethod;
  /** The calling service (`sub` of its token); `anonymous` while authentication is off. */
  readonly caller: string;
  /** The user the call is made for; null when the system acts for itself. */
  readonly actor: string | null;
  /** The project it is about, or the first of several; empty when it names none. */
  readonly project: string;
  readonly correlationId: string;
  /** Aborts at the deadline, or when the client has gone. */
  readonly signal: AbortSignal;
  /** Takes what its statements wait and take. */
  readonly timing: Timing;
  readonly trace: CallTrace;
  /** Null for reads and for mutations sent without a `request_id`. */
  readonly request: RequestIdentity | null;
}
