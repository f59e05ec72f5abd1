import type { IncomingMessage, ServerResponse } from 'node:http';
import { create, type DescMessage, type DescMethod, type Message, type MessageInitShape } from '@bufbuild/protobuf';
import {
  ConnectError,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
  type MethodImpl,
} from '@connectrpc/connect';
import type { UniversalHandler, UniversalHandlerOptions } from '@connectrpc/connect/protocol';
import {
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from '@connectrpc/connect-node';
import type { Logger } from 'pino';
import { type Body, recordBody } from './body.ts';
import { deadlinePassed } from './deadline.ts';
import { type Entry, timingOf } from './entry.ts';
import { bareFailure, ClientGone, Code, codeNameOf, type Failure } from './errors.ts';
import { findJsonFault } from './json.ts';
import { MAX_MESSAGE_BYTES } from './limits.ts';
import type { Codec, Link, Pipeline } from './pipeline.ts';
import { type MethodPlan, undecodable } from './plan.ts';
import { findWireFault } from './wire.ts';

/** A call on this door: its body as it arrives, and its entry into the pipeline. */
interface HttpCall {
  readonly body: Body;
  entry: Entry | null;
}

const callKey = createContextKey<HttpCall | null>(null);

// A response below this is sent faster than it is compressed.
const COMPRESS_MIN_BYTES = 64 * 1024;

/** Answers a request when its path is one of these methods'; false when it is not. */
export type ConnectHandler = (request: IncomingMessage, response: ServerResponse) => boolean;

/** Serves the methods over Connect (JSON and binary) and gRPC-Web. */
export const createConnectHandler = (pipeline: Pipeline, plans: readonly MethodPlan[], log: Logger): ConnectHandler => {
  const byMethod = new Map<DescMethod, MethodPlan>(plans.map((plan) => [plan.method, plan]));
  const router = createConnectRouter({ ...options, grpc: false, requestGate: gateOf(pipeline, byMethod) });
  for (const plan of plans) router.rpc(plan.method, implementationOf(pipeline, plan));
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return (request, response) => {
    const handler = handlers.get(request.url?.split('?', 1)[0] ?? '');
    if (!handler) return false;
    serve(handler, request, response).catch((error) => {
      // What remains here is a connection that broke while the answer was written.
      log.debug({ err: error, method: handler.method.name }, 'an answer was not delivered');
      response.destroy();
    });
    return true;
  };
};

const options: Partial<UniversalHandlerOptions> = {
  acceptCompression: [compressionGzip],
  compressMinBytes: COMPRESS_MIN_BYTES,
  readMaxBytes: MAX_MESSAGE_BYTES,
  jsonOptions: {
    // A guard that is spelt wrong must not be passed over in silence.
    ignoreUnknownFields: false,
    // Handed through to the JSON serialiser, whose own decoder would replace invalid UTF-8 in silence.
    textDecoder: new TextDecoder('utf-8', { fatal: true }),
  } as UniversalHandlerOptions['jsonOptions'],
};

const serve = async (handler: UniversalHandler, request: IncomingMessage, response: ServerResponse) => {
  const call: HttpCall = { body: recordBody(request), entry: null };
  const values = createContextValues().set(callKey, call);
  const universal = universalRequestFromNodeRequest(request, response, undefined, values);
  const body = universal.body as AsyncIterable<Uint8Array>;
  await universalResponseToNodeResponse(await handler({ ...universal, body: call.body.record(body) }), response);
};

/**
 * Lets calls in before their body is read. Connect reads and decodes bodies outside every interceptor, and aborts the
 * call's signal with the very error it is about to write: there the error gets its details.
 */
const gateOf = (pipeline: Pipeline, plans: ReadonlyMap<DescMethod, MethodPlan>) => async (context: HandlerContext) => {
  const call = context.values.get(callKey);
  const plan = plans.get(context.method);
  if (!call || !plan) throw new Error(`${context.method.name} came in past its door`);
  const { promise: ended, reject: end } = Promise.withResolvers<never>();
  ended.catch(() => {});
  const cut = (failure: Failure) => {
    // Nobody waits for the rest of the request.
    context.responseHeader.set('connection', 'close');
    end(connectErrorOf(failure, context));
  };
  const arrival = { system: 'connectrpc', deadline: deadlineOf(context), cut } as const;
  const entry = pipeline.enter(plan, (name) => context.requestHeader.get(name) ?? undefined, arrival);
  call.entry = entry;
  call.body.endWith(ended);
  context.responseHeader.set('x-correlation-id', entry.correlationId);
  const aborted = () => onAbort(pipeline, context, entry, call.body);
  if (context.signal.aborted) aborted();
  else context.signal.addEventListener('abort', aborted, { once: true });
  try {
    if (entry.failure) throw entry.failure;
    await Promise.race([pipeline.admit(entry), ended]);
  } catch (failure) {
    throw failure instanceof ConnectError ? failure : connectErrorOf(failure as Failure, context);
  }
};

const onAbort = (pipeline: Pipeline, context: HandlerContext, entry: Entry, body: Body) => {
  // A call in its handler hears of the abort through its link.
  if (entry.settled || entry.started) return;
  const { reason } = context.signal;
  if (!(reason instanceof ConnectError)) {
    pipeline.fail(entry, new ClientGone());
  } else if (Number(reason.code) === Code.DEADLINE_EXCEEDED) {
    pipeline.fail(entry, deadlinePassed('not_applied'));
  } else {
    rewrite(reason, pipeline.fail(entry, causeOf(reason, entry.plan, body)), context);
  }
};

/** What a request failed with before its handler: the request's fault, the transport's, or unexpected. */
const causeOf = (error: ConnectError, plan: MethodPlan, body: Body): unknown => {
  const code = Number(error.code);
  const binary = /^parse binary: (.*)$/s.exec(error.rawMessage)?.[1];
  if (binary !== undefined) {
    const bytes = body.message();
    return undecodable(binary, bytes && findWireFault(plan.method.input, bytes));
  }
  // A body that ends too early is reported by zlib as a fault of the buffer, and by Connect as one of the server.
  const garbled = error.rawMessage === 'decompression failed';
  if (code === Code.INVALID_ARGUMENT || garbled) {
    return undecodable(error.rawMessage, findJsonFault(plan.method.input, body.json()));
  }
  // How Connect calls a body that breaks off.
  if (code === Code.ABORTED) return new ClientGone();
  return code === Code.INTERNAL ? error : bareFailure(codeNameOf(code), error.rawMessage);
};

const implementationOf = (pipeline: Pipeline, plan: MethodPlan): MethodImpl<DescMethod> => {
  const unary = async (request: Message, context: HandlerContext) => {
    const { entry, body } = callOf(context);
    try {
      const answer = await pipeline.unary(entry, linkOf(context), codecOf(plan, request, body));
      tellTiming(entry, context);
      return answer;
    } catch (failure) {
      throw connectErrorOf(failure as Failure, context);
    }
  };
  const stream = async function* (request: Message, context: HandlerContext) {
    const { entry, body } = callOf(context);
    try {
      yield* pipeline.stream(entry, linkOf(context), codecOf(plan, request, body));
      tellTiming(entry, context);
    } catch (failure) {
      throw connectErrorOf(failure as Failure, context);
    }
  };
  return (plan.streaming ? stream : unary) as unknown as MethodImpl<DescMethod>;
};

/** What a call took: in the headers of its answer, and of a stream, whose headers have left, in its trailers. */
const tellTiming = (entry: Entry, context: HandlerContext) => {
  const where = entry.plan.streaming ? context.responseTrailer : context.responseHeader;
  where.set('server-timing', timingOf(entry));
};

const callOf = (context: HandlerContext): { entry: Entry; body: Body } => {
  const call = context.values.get(callKey);
  if (!call?.entry) throw new Error(`${context.method.name} came in past its gate`);
  return { entry: call.entry, body: call.body };
};

const deadlineOf = (context: HandlerContext): number | null => {
  const remaining = context.timeoutMs();
  return remaining === undefined ? null : Date.now() + remaining;
};

const linkOf = (context: HandlerContext): Link => {
  return {
    deadline: deadlineOf(context),
    onGone: (gone) => {
      if (context.signal.aborted) gone();
      else context.signal.addEventListener('abort', gone, { once: true });
    },
  };
};

const codecOf = (plan: MethodPlan, request: Message, body: Body): Codec<Message> => ({
  decode: () => {
    const bytes = plan.checkWire && body.message();
    if (bytes) plan.checkWire?.(bytes);
    return request;
  },
  encode: (answer) => create(plan.method.output, answer as MessageInitShape<DescMessage>),
});

const connectErrorOf = (failure: Failure, context: HandlerContext): ConnectError =>
  rewrite(new ConnectError(failure.message), failure, context);

const rewrite = (error: ConnectError, failure: Failure, context: HandlerContext): ConnectError => {
  const fields: Partial<ConnectError> = {
    code: Code[failure.code] as number,
    rawMessage: failure.message,
    message: `[${failure.code.toLowerCase()}] ${failure.message}`,
    details: [...failure.details],
  };
  const entry = context.values.get(callKey)?.entry;
  if (entry) tellTiming(entry, context);
  if (failure.code === 'UNAUTHENTICATED') context.responseHeader.set('www-authenticate', 'Bearer');
  if (failure.pushbackMs !== null) {
    context.responseTrailer.set('grpc-retry-pushback-ms', String(failure.pushbackMs));
  }
  return Object.assign(error, fields);
};
