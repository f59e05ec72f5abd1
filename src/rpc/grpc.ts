import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls';
import { type DescService, toBinary } from '@bufbuild/protobuf';
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
  type ServerUnaryCall,
  type ServerWritableStream,
  type StatusObject,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Entry } from './entry.ts';
import { bareFailure, ClientGone, Code, type Failure, statusBytes, toFailure } from './errors.ts';
import { MAX_MESSAGE_BYTES } from './limits.ts';
import { type Codec, deadlinePassed, type Header, isPast, type Link, type Pipeline } from './pipeline.ts';
import { decode, type MethodPlan } from './plan.ts';
import type { Tls } from './tls.ts';

type AnyCall = ServerUnaryCall<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer>;

// Raw bytes: grpc-js answers a deserialiser that throws with a bare INTERNAL, so decoding is the pipeline's.
const raw = (bytes: Buffer): Buffer => bytes;

/** The gRPC server of these methods, not yet listening. */
export const createGrpcDoor = (pipeline: Pipeline, plans: readonly MethodPlan[]): Server => {
  const arrivals: Arrivals = new WeakMap();
  const server = createServer([enterAtHeaders(pipeline, plans, arrivals)]);
  const services = new Map<DescService, MethodPlan[]>();
  for (const plan of plans) {
    const { parent } = plan.method;
    services.set(parent, [...(services.get(parent) ?? []), plan]);
  }
  for (const methods of services.values()) {
    const handlers: UntypedServiceImplementation = {};
    for (const plan of methods) {
      handlers[plan.method.name] = plan.streaming
        ? serveStream(pipeline, plan, arrivals)
        : serveUnary(pipeline, plan, arrivals);
    }
    server.addService(Object.fromEntries(methods.map((plan) => [plan.method.name, definitionOf(plan)])), handlers);
  }
  return server;
};

/** A gRPC server with this service's limits. */
export const createServer = (interceptors: ServerInterceptor[] = []): Server =>
  new Server({
    interceptors,
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_concurrent_streams': 1000,
    // A peer that has vanished without a word is noticed within 80 s.
    'grpc.keepalive_time_ms': 60_000,
    'grpc.keepalive_timeout_ms': 20_000,
    // HTTP/2's own 64 KiB makes a document of 3 MiB wait for some 50 round trips.
    'grpc-node.flow_control_window': MAX_MESSAGE_BYTES,
  });

/**
 * A TLS server, not yet listening, that hands its connections to a gRPC server: grpc-js's own knows neither a lowest version of TLS
 * nor an identity of clients.
 */
export const createTlsEntrance = (grpc: Server, tls: Tls): TlsServer => {
  const inside = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const server = createTlsServer({ ...tls.options(), ALPNProtocols: ['h2'] }, (socket) => {
    // A handshake may end after the server has closed.
    if (server.listening && !socket.destroyed) inside.injectConnection(socket);
    else socket.destroy();
  });
  tls.protect(server);
  return server;
};

/** The calls whose request is on its way, by their metadata. */
type Arrivals = WeakMap<Metadata, Entry>;

/**
 * Enters calls as soon as their headers are there. One whose request never comes in whole (too large, cut off, too late)
 * is answered by grpc-js before any handler, and ends here.
 */
const enterAtHeaders = (pipeline: Pipeline, plans: readonly MethodPlan[], arrivals: Arrivals): ServerInterceptor => {
  const byPath = new Map(plans.map((plan) => [`/${plan.name}`, plan]));
  return ({ path }, call) => {
    const plan = byPath.get(path);
    if (!plan) return new ServerInterceptingCall(call);
    let headers = new Metadata();
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, next) => {
        headers = metadata;
        arrivals.set(metadata, pipeline.enter(plan, headerOf(metadata)));
        next(metadata);
      })
      .withOnCancel(() => {
        const entry = arrivals.get(headers);
        if (!entry) return;
        const late = isPast(Number(call.getDeadline()));
        pipeline.fail(
          entry,
          late ? deadlinePassed('not_applied') : bareFailure('CANCELLED', 'the request was cut off'),
        );
      })
      .build();
    return new ServerInterceptingCall(call, { start: (next) => next(listener) });
  };
};

const headerOf =
  (metadata: Metadata): Header =>
  (name) => {
    const values = metadata.get(name);
    return values.length === 0 ? undefined : values.join(', ');
  };

const definitionOf = (plan: MethodPlan): MethodDefinition<Buffer, Buffer> => ({
  path: `/${plan.name}`,
  requestStream: false,
  responseStream: plan.streaming,
  requestSerialize: raw,
  requestDeserialize: raw,
  responseSerialize: raw,
  responseDeserialize: raw,
});

const serveUnary =
  (pipeline: Pipeline, plan: MethodPlan, arrivals: Arrivals): handleUnaryCall<Buffer, Buffer> =>
  (call, callback) => {
    const entry = begin(arrivals, call);
    pipeline.unary(entry, linkOf(call), codecOf(plan, call.request)).then(
      (bytes) => callback(null, bytes),
      (failure: Failure) => callback(statusOf(failure)),
    );
  };

const serveStream =
  (pipeline: Pipeline, plan: MethodPlan, arrivals: Arrivals): handleServerStreamingCall<Buffer, Buffer> =>
  async (call) => {
    const entry = begin(arrivals, call);
    try {
      for await (const bytes of pipeline.stream(entry, linkOf(call), codecOf(plan, call.request))) {
        await write(call, bytes);
      }
      call.end();
    } catch (error) {
      call.emit('error', statusOf(toFailure(error, { mutation: plan.mutation, started: true })));
    }
  };

/** Hands the call over and sends its correlation id at once: it stands in the headers, whatever becomes of the call. */
const begin = (arrivals: Arrivals, call: AnyCall): Entry => {
  const entry = arrivals.get(call.metadata);
  if (!entry) throw new Error(`${call.getPath()} came in past its door`);
  arrivals.delete(call.metadata);
  const metadata = new Metadata();
  metadata.set('x-correlation-id', entry.correlationId);
  call.sendMetadata(metadata);
  return entry;
};

const linkOf = (call: AnyCall): Link => {
  const deadline = Number(call.getDeadline());
  return {
    deadline: Number.isFinite(deadline) ? deadline : null,
    onGone: (gone) => {
      if (call.cancelled) gone();
      else call.on('cancelled', gone);
    },
  };
};

const codecOf = (plan: MethodPlan, request: Buffer): Codec<Buffer> => ({
  decode: () => decode(plan, request),
  encode: (message) => {
    const bytes = toBinary(plan.method.output, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  },
});

/** Writes one message and waits until it has left: a client that reads slowly slows the handler, and no memory fills up. */
const write = (call: ServerWritableStream<Buffer, Buffer>, bytes: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    const onClose = () => reject(new ClientGone());
    if (call.destroyed) return onClose();
    // A write that a cancelled call has swallowed is never called back.
    call.once('close', onClose);
    call.write(bytes, (error: Error | null | undefined) => {
      call.off('close', onClose);
      if (error) reject(new ClientGone());
      else resolve();
    });
  });

const statusOf = (failure: Failure): StatusObject => {
  const metadata = new Metadata();
  if (failure.details.length > 0) metadata.set('grpc-status-details-bin', Buffer.from(statusBytes(failure)));
  if (failure.pushbackMs !== null) metadata.set('grpc-retry-pushback-ms', String(failure.pushbackMs));
  return { code: Code[failure.code], details: failure.message, metadata };
};
