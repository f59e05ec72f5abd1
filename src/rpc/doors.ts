import type { AddressInfo, Server as NetServer, Socket } from 'node:net';
import { type Server as GrpcServer, ServerCredentials, setLogger } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import type { AccessLog } from '../audit/access-log.ts';
import type { Measurements } from '../telemetry/measurements.ts';
import { createConnectHandler } from './connect.ts';
import { createGrpcDoor, createProbes, createTlsEntrance } from './grpc.ts';
import { createGuard } from './guard.ts';
import type { Implementation } from './handlers.ts';
import type { Health } from './health.ts';
import { createHttpDoor, type Page } from './http.ts';
import type { IdentifyRequest } from './identity.ts';
import { type Address, formatAddress, isLoopback } from './listen.ts';
import { type Authenticate, createPipeline } from './pipeline.ts';
import { compilePlans } from './plan.ts';
import { addReflection } from './reflection.ts';
import type { Tls } from './tls.ts';

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
   * Turns health NOT_SERVING, refuses new calls with SHUTTING_DOWN, and waits until those in flight have ended, `graceMs`
   * milliseconds at most; streams that wait for news end at once.
   */
  drain(graceMs: number): Promise<void>;
  /** Closes every connection: those in use after `graceMs` milliseconds by force. */
  stop(graceMs: number): Promise<void>;
}

/**
 * Both doors over one pipeline, and the health port.
 * Throws for an address beyond loopback without authentication, and a method without handler or access.
 */
export const createDoors = (options: DoorOptions): Doors => {
  const { health, log, implementations, authenticate, tls, version } = options;
  const { grpcListen, httpListen, healthListen, routes = new Map() } = options;
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
  const grpc = createGrpcDoor(pipeline, plans);
  health.addTo(grpc);
  addReflection(grpc);
  const guard = createGuard(options.allowedOrigins, authenticate === null);
  const handle = createConnectHandler(pipeline, plans, log);
  const http = createListener(createHttpDoor({ handle, routes, guard, health, version, tls }));
  const entrance = tls && createListener(createTlsEntrance(grpc, tls));
  const probes = healthListen && createProbes();
  if (probes) health.addTo(probes);

  const stop = async (graceMs: number) => {
    health.endWatches();
    // The entrance first: nobody comes in while the server behind it closes.
    await Promise.all([
      entrance?.stop(graceMs),
      stopGrpc(grpc, graceMs),
      probes && stopGrpc(probes, graceMs),
      http.stop(graceMs),
    ]);
  };

  return {
    start: async () => {
      try {
        return {
          grpc: await listening(
            'GRPC_LISTEN',
            grpcListen,
            entrance?.listen(grpcListen) ?? listenGrpc(grpc, grpcListen),
          ),
          http: await listening('HTTP_LISTEN', httpListen, http.listen(httpListen)),
          health: probes && (await listening('HEALTH_LISTEN', healthListen, listenGrpc(probes, healthListen))),
        };
      } catch (error) {
        await stop(0);
        throw error;
      }
    },
    drain: async (graceMs) => {
      health.drain();
      await pipeline.drain(graceMs);
    },
    stop,
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
const listening = async (name: string, address: Address, started: Promise<string>): Promise<string> => {
  try {
    return await started;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    const why = message.includes('EADDRINUSE') ? 'something listens there already' : message;
    throw new Error(`${name}=${formatAddress(address)} cannot be listened on: ${why}. Stop that, or set another.`, {
      cause,
    });
  }
};

const listenGrpc = (server: GrpcServer, address: Address): Promise<string> =>
  new Promise((resolve, reject) => {
    server.bindAsync(formatAddress(address), ServerCredentials.createInsecure(), (error, port) => {
      if (error) reject(error);
      else resolve(formatAddress({ host: address.host, port }));
    });
  });

const stopGrpc = (server: GrpcServer, graceMs: number): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, graceMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });

/** A server of sockets, which knows all of its connections: those in a TLS handshake too. */
const createListener = (server: NetServer) => {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return {
    listen: (address: Address): Promise<string> =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(address.port, address.host, () => {
          server.off('error', reject);
          resolve(formatAddress({ host: address.host, port: (server.address() as AddressInfo).port }));
        });
      }),
    /** Waits until the connections have ended, after `graceMs` milliseconds by force. */
    stop: (graceMs: number): Promise<void> =>
      new Promise((resolve) => {
        const timer = setTimeout(() => {
          for (const socket of sockets) socket.destroy();
        }, graceMs);
        server.close(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
  };
};
