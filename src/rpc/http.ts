import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { ConnectHandler } from './connect.ts';
import { answerJson, type Guard } from './guard.ts';
import type { Health } from './health.ts';

/** The HTTP server: Connect and gRPC-Web, `/livez` and `/readyz`; not yet listening. */
export const createHttpDoor = (handle: ConnectHandler, guard: Guard, health: Health, version: string): Server =>
  createServer((request, response) => {
    // A client that keeps its connection would meet a closed one after the drain.
    if (health.draining) response.setHeader('connection', 'close');
    if (guard(request, response) || answerProbe(request, response, health, version)) return;
    try {
      if (handle(request, response)) return;
    } catch {
      answerJson(response, 400, { code: 'invalid_argument', message: 'the request has no valid URL or Host header' });
      return;
    }
    answerJson(response, 404, { code: 'unimplemented', message: 'nothing is served under this path' });
  });

const answerProbe = (request: IncomingMessage, response: ServerResponse, health: Health, version: string): boolean => {
  const { url, method } = request;
  if (url !== '/livez' && url !== '/readyz') return false;
  if (method !== 'GET' && method !== 'HEAD') {
    answerJson(response, 405, { code: 'unimplemented', message: 'use GET' });
  } else if (url === '/livez') {
    answerJson(response, 200, { status: 'live', version });
  } else {
    answerJson(response, health.ready ? 200 : 503, { status: readiness(health), version });
  }
  return true;
};

const readiness = ({ ready, draining }: Health): string => (ready ? 'ready' : draining ? 'draining' : 'not ready');
