import { setTimeout as sleep } from 'node:timers/promises';
import { type Server as GrpcServer, setLogger } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import type { AccessLog } from '../audit/access-log.ts';
import type { Measurements } from '../telemetry/measurements.ts';
import { createConnectHandler } from './connect.ts';
import { createEntrance, createGrpcDoor, createProbes } from './grpc.ts';
import { createGuard } from './guard.ts';
import type { Implementation } from './handlers.ts';
import type { Health } from './health.ts';
import { createHttpDoor, type Page } from './http.ts';
import type { IdentifyRequest } from './identity.ts';
import { CONNECTION_AGE_MS } from './limits.ts';
import { type Address, formatAddress, isLoopback } from './listen.ts';
import { createListener, type Listener } from './listener.ts';
import { type Authenticate, createPipeline } from './pipeline.ts';
import { compilePlans } from './plan.ts';
import { addReflection } from './reflection.ts';
import type { Tls } from './tls.ts';
import { limitUnread, type Unread } from './unread.ts';

export interface DoorOptions {
  /** `host:port` of the gRPC door; port 0 is any free one. */
  readonly grpcListen: Address;
  /** `host:port` of the HTTP door. */
  readonly httpListen: Address;
  /** `host:port` of a plaintext gRPC server with health alone, for probes; null for none. */
  readonly healthListen: Address | null;
  /** Null: both doors speak plaintext. The health port always does. */
  readonly tls: Tls | null;
  /** Null turns authentication off, which is allowed on loopback addresses only. */
  readonly authenticate: Authenticate | null;
  readonly identifyRequest: IdentifyRequest;
  /** The origins whose web pages may call the HTTP door, as in `https://app.example`. */
  readonly allowedOrigins: readonly string[];
  readonly implementations: readonly Implementation[];
  readonly health: Health;
  readonly log: Logger;
  readonly accessLog: AccessLog;
  readonly measurements: Measurements;
  /** What the HTTP door serves besides the methods and the probes, by path; nothing without it. */
  readonly routes?: ReadonlyMap<string, Page>;
  /** The service's version, for the probes. */
  readonly version: string;
  /** Instead of the usual bounds on what clients leave unread. */
  readonly unread?: Unread;
  /** After how long, in milliseconds, a connection has had its time; instead of the usual. */
  readonly connectionAgeMs?: number;
}

/** Where the doors listen, as `host:port`. */
export interface BoundAddresses {
  readonly grpc: string;
  readonly http: string;
  readonly health: string | null;
}

export interface Doors {
  /** Listens. Throws when an address is taken; then nothing listens. */
  start(): Promise<BoundAddresses>;
  /**
   * Turns health NOT_SERVING and goes on serving for `delayMs` milliseconds, in which balancers turn away. Then tells every
   * client to call elsewhere, takes no more connections, ends the watches behind what they have sent, and waits until the calls
   * in flight have ended, `graceMs` milliseconds at most.
   */
  drain(graceMs: number, delayMs?: number): Promise<void>;
  /** Closes every connection: those in use after `graceMs` milliseconds by force. */
  stop(graceMs: number): Promise<void>;
}

/**
 * Both doors over one pipeline, and the health port.
 * Throws for an address beyond loopback without authentication, and a method without handler or access.
 */
export const createDoors = (options: DoorOptions): Doors => {
  const { health, log, implementations, authenticate, tls, version } = options;
  const { grpcListen, httpListen, healthListen, routes = new Map(), connectionAgeMs = CONNECTION_AGE_MS } = options;
  // Health tells nothing but itself, and probes have no token: any address will do for it.
  checkAddress('GRPC_LISTEN', grpcListen, authenticate !== null);
  checkAddress('HTTP_LISTEN', httpListen, authenticate !== null);

  // grpc-js would write to the console what the callers of this are told anyway.
  const tell = (message: unknown) => log.debug({ grpc: String(message) }, 'grpc-js');
  setLogger({ error: tell, info: tell, debug: tell });
  const plans = compilePlans(implementations);
  const pipeline = createPipeline({
    log,
    accessLog: options.accessLog,
    measurements: options.measurements,
    authenticate,
    identifyRequest: options.identifyRequest,
  });
  const unread = options.unread ?? limitUnread();
  const grpc = createGrpcDoor(pipeline, plans, { unread, ageMs: connectionAgeMs });
  health.addTo(grpc);
  addReflection(grpc);
  const guard = createGuard(options.allowedOrigins, authenticate === null);
  const handle = createConnectHandler(pipeline, plans, log);
  const http = createListener(
    createHttpDoor({ handle, routes, guard, health, version, unread, ageMs: connectionAgeMs, tls }),
  );
  const entrance = enterBy(grpc, tls);
  const probes = healthListen && enterBy(createProbes(health, unread), null);
  const listeners = [entrance, http, ...(probes ? [probes] : [])];

  const stop = async (graceMs: number) => {
    health.endWatches();
    const closed = Promise.all(listeners.map((listener) => listener.close()));
    const timer = setTimeout(() => {
      for (const listener of listeners) listener.destroy();
    }, graceMs);
    await closed;
    clearTimeout(timer);
    unread.stop();
  };

  return {
    start: async () => {
      try {
        return {
          grpc: await listen('GRPC_LISTEN', grpcListen, entrance),
          http: await listen('HTTP_LISTEN', httpListen, http),
          health: probes && (await listen('HEALTH_LISTEN', healthListen, probes)),
        };
      } catch (error) {
        await stop(0);
        throw error;
      }
    },
    drain: async (graceMs, delayMs = 0) => {
      health.drain();
      await sleep(delayMs);
      // In one go with the refusal of further calls: whoever came in before is answered, who comes later tries elsewhere.
      for (const listener of [entrance, http]) listener.close();
      health.endWatches();
      await pipeline.drain(graceMs);
    },
    stop,
  };
};

/** The way into a gRPC server, which closes with it: its clients are told to call elsewhere. */
const enterBy = (grpc: GrpcServer, tls: Tls | null): Listener => {
  const entrance = createListener(createEntrance(grpc, tls));
  return {
    ...entrance,
    close: () => {
      const closed = entrance.close();
      grpc.tryShutdown(() => {});
      return closed;
    },
  };
};

const checkAddress = (name: string, address: Address, authenticated: boolean): void => {
  if (authenticated || isLoopback(address.host)) return;
  throw new Error(
    `${name}=${formatAddress(address)} can be reached from other machines, and authentication is off: anybody could read and write everything. ` +
      'Listen on 127.0.0.1, or configure authentication.',
  );
};

/** Says of which setting an address is that cannot be listened on, and what to do. */
const listen = async (name: string, address: Address, listener: Listener): Promise<string> => {
  try {
    return await listener.listen(address);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    const why = message.includes('EADDRINUSE') ? 'something listens there already' : message;
    throw new Error(`${name}=${formatAddress(address)} cannot be listened on: ${why}. Stop that, or set another.`, {
      cause,
    });
  }
};
