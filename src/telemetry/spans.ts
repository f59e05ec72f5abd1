import {
  type Attributes,
  type Context,
  INVALID_SPAN_CONTEXT,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import type { RpcSystem } from './measurements.ts';

const tracer = trace.getTracer('jeex-persistence');

/** Whether an SDK takes spans: what does nothing without one costs several microseconds of each call all the same. */
let isTraced = false;
export const traceCalls = (): void => {
  isTraced = true;
};

type Header = (name: string) => string | undefined;
const headers = { keys: () => ['traceparent', 'tracestate'], get: (header: Header, name: string) => header(name) };

/** A call's span, and the context that what it causes stands below. One that records nothing until an SDK is loaded. */
export interface CallTrace {
  readonly span: Span;
  readonly context: Context;
}

const UNTRACED: CallTrace = { span: trace.wrapSpanContext(INVALID_SPAN_CONTEXT), context: ROOT_CONTEXT };

/**
 * Begins a server span below the caller's own, which `traceparent` names (https://www.w3.org/TR/trace-context/), as the
 * conventions have it (https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/).
 */
export const beginTrace = (system: RpcSystem, method: string, correlationId: string, header: Header): CallTrace => {
  if (!isTraced) return UNTRACED;
  const parent = propagation.extract(ROOT_CONTEXT, header, headers);
  const attributes = { 'rpc.system.name': system, 'rpc.method': method, 'jeex.correlation_id': correlationId };
  const span = tracer.startSpan(method, { kind: SpanKind.SERVER, attributes }, parent);
  return { span, context: trace.setSpan(parent, span) };
};

/** The codes that are a server's fault, and an error of its span; the others are its caller's. */
const SERVER_ERRORS: ReadonlySet<string> = new Set([
  'UNKNOWN',
  'DEADLINE_EXCEEDED',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
]);

/** Whether a status code says that the server failed. */
export const isServerError = (code: string): boolean => SERVER_ERRORS.has(code);

/** Ends the span with the call's status. @param reason the contract's; null for what has none */
export const endTrace = ({ span }: CallTrace, code: string, reason: string | null): void => {
  if (span.isRecording()) {
    span.setAttribute('rpc.response.status_code', code);
    if (reason !== null) span.setAttribute('jeex.reason', reason);
    if (isServerError(code)) {
      span.setAttribute('error.type', code);
      span.setStatus({ code: SpanStatusCode.ERROR, message: reason ?? code });
    }
  }
  span.end();
};

/** The trace and span that a log line belongs to; nothing without an SDK. */
export const traceIdsOf = ({ span }: CallTrace): { traceId?: string; spanId?: string } => {
  const { traceId, spanId } = span.spanContext();
  return /^0*$/.test(traceId) ? {} : { traceId, spanId };
};

/** A call's span as `traceparent` names it, for those that are recorded; null for the others. */
export const traceparentOf = ({ span }: CallTrace): string | null => {
  const { traceId, spanId, traceFlags } = span.spanContext();
  return (traceFlags & TraceFlags.SAMPLED) === 0 ? null : `00-${traceId}-${spanId}-01`;
};

/** A statement's span: of a call that is not traced there is none. */
export interface StatementSpan {
  /** @param error its type: a SQLSTATE, or the reason that the call was given; null when it was answered */
  end(error: string | null): void;
}

/**
 * Begins a client span below a call's. It names the statement, never its values: `db.query.summary`, as in
 * https://opentelemetry.io/docs/specs/semconv/db/sql/.
 * @param place `server.address`, `server.port` and `db.namespace`
 */
export const beginStatement = (name: string, place: Attributes, below: CallTrace | undefined): StatementSpan | null => {
  if (!below?.span.isRecording()) return null;
  const attributes = { ...place, 'db.system.name': 'postgresql', 'db.query.summary': name };
  const span = tracer.startSpan(name, { kind: SpanKind.CLIENT, attributes }, below.context);
  return {
    end: (error) => {
      if (error !== null) {
        span.setAttribute('error.type', error);
        if (isSqlState(error)) span.setAttribute('db.response.status_code', error);
        span.setStatus({ code: SpanStatusCode.ERROR });
      }
      span.end();
    },
  };
};

/** Whether what a statement failed with is PostgreSQL's own code for it. */
export const isSqlState = (error: string): boolean => /^[0-9A-Z]{5}$/.test(error);
