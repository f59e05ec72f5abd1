import {
  type Context,
  context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { Failure } from './errors.ts';
import type { Header } from './pipeline.ts';

const tracer = trace.getTracer('jeex-persistence');
const headers = { keys: () => ['traceparent', 'tracestate'], get: (header: Header, name: string) => header(name) };

/** A call's span, and the context its work runs in. Nothing but a few no-ops until an OpenTelemetry SDK is loaded. */
export interface CallTrace {
  readonly span: Span;
  readonly context: Context;
}

/** Begins a server span below the caller's own, which `traceparent` names (https://www.w3.org/TR/trace-context/). */
export const beginTrace = (method: string, correlationId: string, header: Header): CallTrace => {
  const parent = propagation.extract(ROOT_CONTEXT, header, headers);
  const attributes = { 'rpc.method': method, 'jeex.correlation_id': correlationId };
  const span = tracer.startSpan(method, { kind: SpanKind.SERVER, attributes }, parent);
  return { span, context: trace.setSpan(parent, span) };
};

/** Runs work inside a call's span. */
export const inTrace = <T>(traced: CallTrace, work: () => T): T => context.with(traced.context, work);

/** Ends the span with the call's status. */
export const endTrace = ({ span }: CallTrace, failure: Failure | null): void => {
  span.setAttribute('rpc.status_code', failure?.code ?? 'OK');
  if (failure) span.setStatus({ code: SpanStatusCode.ERROR, message: failure.reason ?? failure.code });
  span.end();
};

/** The trace a log line belongs to; undefined without one. */
export const traceIdOf = ({ span }: CallTrace): string | undefined => {
  const { traceId } = span.spanContext();
  return /^0*$/.test(traceId) ? undefined : traceId;
};
