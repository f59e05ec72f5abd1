import { createServer as createNetServer, type Server as NetServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls';
import type { DescService } from '@bufbuild/protobuf';
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerInterceptor,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { type Arrivals, admitAtHeaders, guardStrangers, statusOf } from './arrival.ts';
import { type Entry, timingOf } from './entry.ts';
import { ClientGone, type Failure, toFailure } from './errors.ts';
import type { Health } from './health.ts';
import {
  CONNECTION_AGE_GRACE_MS,
  CONNECTION_AGE_MS,
  KEEPALIVE_MS,
  KEEPALIVE_TIMEOUT_MS,
  MAX_MESSAGE_BYTES,
  MAX_STREAMS,
} from './limits.ts';
import type { Codec, Link, Pipeline } from './pipeline.ts';
import { decode, type MethodPlan } from './plan.ts';
import type { Tls } from './tls.ts';
import type { Unread } from './unread.ts';

type AnyCall = ServerUnaryCall<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer>;

// Raw bytes: grpc-js answers a deserialiser that throws with a bare INTERNAL, so decoding is the pipeline's.
const raw = (bytes: Buffer): Buffer => bytes;

interface Bounds {
  readonly unread: Unread;
  /** After how long, in milliseconds, a connection has had its time. */
  readonly ageMs: number;
}

/** The gRPC server of these methods. */
export const createGrpcDoor = (pipeline: Pipeline, plans: readonly MethodPlan[], bounds: Bounds): Server => {
  const arrivals: Arrivals = new WeakMap();
  const admit = admitAtHeaders(pipeline, plans, arrivals, guardStrangers());
  const server = createServer(LIMITS, bounds, [admit]);
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

interface Limits {
  readonly messageBytes: number;
  /** How many calls one connection may have at a time. */
  readonly streams: number;
}

const LIMITS: Limits = { messageBytes: MAX_MESSAGE_BYTES, streams: MAX_STREAMS };
/** Anybody may ask a health port, and what is asked is a name. */
const PROBE_LIMITS: Limits = { messageBytes: 4096, streams: 100 };

const createServer = (limits: Limits, { unread, ageMs }: Bounds, interceptors: ServerInterceptor[]): Server =>
  new Server({
    interceptors: [unread.interceptor, ...interceptors],
    'grpc.max_receive_message_length': limits.messageBytes,
    'grpc.max_concurrent_streams': limits.streams,
    'grpc.max_connection_age_ms': ageMs,
    'grpc.max_connection_age_grace_ms': CONNECTION_AGE_GRACE_MS,
    // A peer that has vanished without a word is noticed within 80 s.
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    // Nobody asks it, and it counts each call.
    'grpc.enable_channelz': 0,
  });

/** The gRPC server of a health port. */
export const createProbes = (health: Health, unread: Unread): Server => {
  const server = createServer(PROBE_LIMITS, { unread, ageMs: CONNECTION_AGE_MS }, [guardStrangers()]);
  health.addTo(server);
  return server;
};

/**
 * A server of sockets, not yet listening, that hands its connections to a gRPC server: grpc-js's own knows neither a bound on
 * them, nor a lowest version of TLS, nor an identity of clients.
 */
export const createEntrance = (grpc: Server, tls: Tls | null): NetServer => {
  const inside = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const take = (socket: Socket) => {
    // A handshake may end after the server has closed.
    if (server.listening && !socket.destroyed) inside.injectConnection(socket);
    else socket.destroy();
  };
  const server: NetServer =
    tls === null ? createNetServer(take) : createTlsServer({ ...tls.options(), ALPNProtocols: ['h2'] }, take);
  if (tls !== null) tls.protect(server as TlsServer);
  return server;
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
      call.end(trailersOf(entry));
    } catch (error) {
      const sent = statusOf(toFailure(error, { mutation: plan.mutation, started: true }));
      sent.metadata.set('server-timing', timingOf(entry));
      call.emit('error', sent);
    }
  };

/** What a stream took is known at its end. */
const trailersOf = (entry: Entry): Metadata => {
  const trailers = new Metadata();
  trailers.set('server-timing', timingOf(entry));
  return trailers;
};

/** Hands the call over. */
const begin = (arrivals: Arrivals, call: AnyCall): Entry => {
  const entry = arrivals.get(call.metadata);
  if (!entry) throw new Error(`${call.getPath()} came in past its door`);
  arrivals.delete(call.metadata);
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
  encode: plan.encode,
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
