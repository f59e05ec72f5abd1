import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  type Server,
  type ServerWritableStream,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { HealthImplementation, type ServingStatusMap } from 'grpc-health-check';

/** What the service says of itself: over `grpc.health.v1` on any server it is added to, and in `/readyz`. */
export interface Health {
  /** Whether the database answers and the schema is current, and the service is not draining. */
  readonly ready: boolean;
  readonly draining: boolean;
  setReady(ready: boolean): void;
  /** NOT_SERVING from now on, whatever `setReady` says later. */
  drain(): void;
  /** Serves `grpc.health.v1.Health` on a server. */
  addTo(server: Server): void;
  /** Ends the open Watch streams, which would keep their connections open for ever. */
  endWatches(): void;
}

/**
 * Health of `""`, `readiness` and each service, which go together, and of `liveness`, which answers as long as the event loop
 * turns. Any other name is NOT_FOUND for Check and SERVICE_UNKNOWN for Watch. It starts as not ready. Anybody may ask, so
 * that nothing that a caller makes up is kept.
 */
export const createHealth = (services: readonly string[]): Health => {
  const names = ['', 'readiness', ...services];
  const initial: ServingStatusMap = { liveness: 'SERVING' };
  for (const name of names) initial[name] = 'NOT_SERVING';
  const implementation = new HealthImplementation(initial);
  const watches = new Set<Watch>();
  let ready = false;
  let draining = false;
  let shown = false;

  const show = () => {
    const now = ready && !draining;
    if (now === shown) return;
    shown = now;
    for (const name of names) implementation.setStatus(name, now ? 'SERVING' : 'NOT_SERVING');
  };

  return {
    get ready() {
      return shown;
    },
    get draining() {
      return draining;
    },
    setReady: (value) => {
      ready = value;
      show();
    },
    drain: () => {
      draining = true;
      show();
    },
    addTo: (server) => {
      implementation.addToServer({
        addService: (service, handlers) => {
          const known = new Set(Object.keys(initial));
          server.addService(service as Parameters<Server['addService']>[0], guard(handlers, known, watches));
        },
      });
    },
    endWatches: () => {
      for (const call of watches) call.end();
      watches.clear();
    },
  };
};

/** How many Watch streams a process has open at a time. */
const MAX_WATCHES = 1000;
/** A name that is longer is no service's, and would be held as long as its Watch. */
const MAX_NAME_LENGTH = 255;

interface Asked {
  readonly service: string;
}

type Watch = ServerWritableStream<Asked, { readonly status: string }>;

/** The handlers for the names that are known: the library keeps every name that it was ever asked to watch. */
const guard = (handlers: object, known: ReadonlySet<string>, watches: Set<Watch>): UntypedServiceImplementation => {
  const { check, watch, ...rest } = handlers as UntypedServiceImplementation & {
    readonly check: handleUnaryCall<Asked, unknown>;
    readonly watch: handleServerStreamingCall<Asked, { readonly status: string }>;
  };
  const guarded = {
    check: (call: Parameters<typeof check>[0], callback: Parameters<typeof check>[1]) => {
      if (known.has(call.request.service)) check(call, callback);
      else callback({ code: status.NOT_FOUND, details: 'no service of that name is known' });
    },
    watch: (call: Watch) => {
      const { service } = call.request;
      if (service.length > MAX_NAME_LENGTH)
        return refuse(call, status.INVALID_ARGUMENT, 'no service has so long a name');
      if (watches.size >= MAX_WATCHES) return refuse(call, status.RESOURCE_EXHAUSTED, 'too many watch at the moment');
      watches.add(call);
      call.on('cancelled', () => watches.delete(call));
      if (known.has(service)) watch(call);
      else call.write({ status: 'SERVICE_UNKNOWN' });
    },
  };
  return { ...rest, ...guarded } as UntypedServiceImplementation;
};

const refuse = (call: Watch, code: status, details: string): void => {
  call.emit('error', { code, details });
};
