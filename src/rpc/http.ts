import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { ConnectHandler } from './connect.ts';
import { answerJson, type Guard } from './guard.ts';
import type { Health } from './health.ts';
import { BODY_TIMEOUT_MS, KEEPALIVE_MS, MAX_BODY_TIMEOUT_MS } from './limits.ts';
import type { Tls } from './tls.ts';
import type { Unread } from './unread.ts';

/** Answers a GET or HEAD of one path; of a HEAD, Node leaves the body out. Must not throw. */
export type Page = (request: IncomingMessage, response: ServerResponse) => void;

interface HttpDoorOptions {
  readonly handle: ConnectHandler;
  /** What is served besides the methods, by path. */
  readonly routes: ReadonlyMap<string, Page>;
  readonly guard: Guard;
  readonly health: Health;
  readonly version: string;
  readonly unread: Unread;
  /** After how long, in milliseconds, a connection has had its time. */
  readonly ageMs: number;
  /** Null: plaintext. */
  readonly tls: Tls | null;
}

const OPTIONS = {
  // Of two headers `authorization`, Node would pass over the second in silence.
  joinDuplicateHeaders: true,
  // What the pipeline does not bound: headers that do not end, and requests that were answered before they were whole.
  headersTimeout: BODY_TIMEOUT_MS,
  requestTimeout: MAX_BODY_TIMEOUT_MS,
  connectionsCheckingInterval: 5_000,
  // A peer that has vanished without a word.
  keepAlive: true,
  keepAliveInitialDelay: KEEPALIVE_MS,
};

/** The HTTP server: Connect and gRPC-Web, `/livez` and `/readyz`, and what else is given; not yet listening. */
export const createHttpDoor = (options: HttpDoorOptions): Server | TlsServer => {
  const { tls } = options;
  const isOld = createAges(options.ageMs);
  const serve = (request: IncomingMessage, response: ServerResponse) => {
    options.unread.watch(response);
    // A client that keeps its connection would meet a closed one after the drain.
    if (options.health.draining || isOld(request.socket)) response.setHeader('connection', 'close');
    answer(options, request, response);
  };
  if (tls === null) return createServer(OPTIONS, serve);
  const server = createTlsServer({ ...OPTIONS, ...tls.options() }, serve);
  tls.protect(server);
  return server;
};

/** Whether a connection has had its time, which begins with its first request. */
const createAges = (ageMs: number) => {
  const ends = new WeakMap<Socket, number>();
  return (socket: Socket): boolean => {
    const now = performance.now();
    const end = ends.get(socket) ?? now + ageMs * (0.9 + Math.random() / 5);
    ends.set(socket, end);
    return now >= end;
  };
};

const answer = (options: HttpDoorOptions, request: IncomingMessage, response: ServerResponse): void => {
  const { handle, guard } = options;
  if (guard(request, response) || answerPage(options, request, response)) return;
  try {
    if (handle(request, response)) return;
  } catch {
    answerJson(response, 400, { code: 'invalid_argument', message: 'the request has no valid URL or Host header' });
    return;
  }
  answerJson(response, 404, { code: 'unimplemented', message: 'nothing is served under this path' });
};

const answerPage = (options: HttpDoorOptions, request: IncomingMessage, response: ServerResponse): boolean => {
  const path = request.url?.split('?', 1)[0] ?? '';
  const page = probeOf(options, path) ?? options.routes.get(path);
  if (!page) return false;
  if (request.method === 'GET' || request.method === 'HEAD') page(request, response);
  else answerJson(response, 405, { code: 'unimplemented', message: 'use GET' });
  return true;
};

const probeOf = ({ health, version }: HttpDoorOptions, path: string): Page | undefined => {
  if (path === '/livez') return (_, response) => answerJson(response, 200, { status: 'live', version });
  if (path !== '/readyz') return undefined;
  return (_, response) => answerJson(response, health.ready ? 200 : 503, { status: readiness(health), version });
};

const readiness = ({ ready, draining }: Health): string => (ready ? 'ready' : draining ? 'draining' : 'not ready');
