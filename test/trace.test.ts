import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Attributes, createContextKey, propagation, type Span, type SpanOptions, trace } from '@opentelemetry/api';
import { beginTrace, endTrace, traceCalls, traceIdsOf } from '../src/telemetry/spans.ts';

const PARENT = createContextKey('the caller');
const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';

it('a call’s span stands below the caller’s, carries its correlation id, and ends with its status', () => {
  const seen: { name?: string; options?: SpanOptions; parent?: unknown; attributes: Attributes; ended: number } = {
    attributes: {},
    ended: 0,
  };
  const span = {
    spanContext: () => ({ traceId: TRACE_ID, spanId: 'b7ad6b7169203331', traceFlags: 1 }),
    setAttribute: (name: string, value: string) => {
      seen.attributes[name] = value;
    },
    setStatus: () => {},
    isRecording: () => true,
    end: () => {
      seen.ended += 1;
    },
  } as unknown as Span;
  trace.setGlobalTracerProvider({
    getTracer: () => ({
      startSpan: (name, options, context) => {
        Object.assign(seen, { name, options, parent: context?.getValue(PARENT) });
        return span;
      },
      startActiveSpan: () => assert.fail('spans are made active by the pipeline'),
    }),
  });
  propagation.setGlobalPropagator({
    fields: () => ['traceparent'],
    inject: () => {},
    extract: (context, carrier, getter) => context.setValue(PARENT, getter.get(carrier, 'traceparent')),
  });
  const traceparent = `00-${TRACE_ID}-b7ad6b7169203331-01`;
  const untraced = beginTrace('grpc', 'a.Service/Call', 'c0ffee', () => traceparent);
  assert.deepEqual([seen.name, untraced.span.isRecording(), traceIdsOf(untraced)], [undefined, false, {}]);
  traceCalls();
  const traced = beginTrace('grpc', 'a.Service/Call', 'c0ffee', (name) =>
    name === 'traceparent' ? traceparent : undefined,
  );
  assert.deepEqual([seen.name, seen.parent], ['a.Service/Call', traceparent]);
  assert.equal(seen.options?.attributes?.['jeex.correlation_id'], 'c0ffee');
  assert.equal(traceIdsOf(traced).traceId, TRACE_ID);
  endTrace(traced, 'OK', null);
  assert.deepEqual([seen.attributes['rpc.response.status_code'], seen.ended], ['OK', 1]);
});
