import type { Server, ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js';
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
 * turns. Any other name is NOT_FOUND for Check and SERVICE_UNKNOWN for Watch. It starts as not ready.
 */
export const createHealth = (services: readonly string[]): Health => {
  const names = ['', 'readiness', ...services];
  const initial: ServingStatusMap = { liveness: 'SERVING' };
  for (const name of names) initial[name] = 'NOT_SERVING';
  const implementation = new HealthImplementation(initial);
  const watches = new Set<ServerWritableStream<unknown, unknown>>();
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
          server.addService(service as Parameters<Server['addService']>[0], trackWatches(handlers, watches));
        },
      });
    },
    endWatches: () => {
      for (const call of watches) call.end();
      watches.clear();
    },
  };
};

const trackWatches = (
  handlers: object,
  watches: Set<ServerWritableStream<unknown, unknown>>,
): UntypedServiceImplementation => {
  const { watch, ...rest } = handlers as UntypedServiceImplementation;
  return {
    ...rest,
    watch: (call: ServerWritableStream<unknown, unknown>) => {
      watches.add(call);
      call.on('cancelled', () => watches.delete(call));
      (watch as (call: ServerWritableStream<unknown, unknown>) => void)(call);
    },
  };
};
