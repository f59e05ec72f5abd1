import type { IncomingMessage, ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import { cors } from '@connectrpc/connect';
import { isLoopback } from './listen.ts';

/** Refuses what a web page may not do; true when it has answered the request. */
export type Guard = (request: IncomingMessage, response: ServerResponse) => boolean;

const OWN_HEADERS = ['authorization', 'traceparent', 'x-actor-id', 'x-correlation-id'];
const OWN_ANSWERS = ['server-timing', 'x-correlation-id', 'grpc-retry-pushback-ms', 'trailer-grpc-retry-pushback-ms'];
const PREFLIGHT_SECONDS = 600;

/**
 * Guards the HTTP door against web pages: those of origins that are neither its own nor on the list, and, where nobody is
 * authenticated, those that reach a loopback address through a name of their own (DNS rebinding), which only the Host
 * header gives away. Where tokens are asked for, such a page may call, and has none.
 */
export const createGuard = (allowedOrigins: readonly string[], checkHost: boolean): Guard => {
  const allowed = new Set(allowedOrigins);
  return (request, response) => {
    const { host, origin } = request.headers;
    if (checkHost && !isLoopbackHost(host)) {
      const message = 'the Host header must name this machine: localhost, 127.0.0.1 or [::1]';
      answerJson(response, 403, { code: 'permission_denied', message });
      return true;
    }
    if (origin === undefined || origin === ownOrigin(request)) return false;
    if (!allowed.has(origin)) {
      answerJson(response, 403, {
        code: 'permission_denied',
        message: 'this origin is not on the list of allowed ones',
      });
      return true;
    }
    response.setHeader('access-control-allow-origin', origin);
    response.setHeader('vary', 'origin');
    response.setHeader('access-control-expose-headers', [...cors.exposedHeaders, ...OWN_ANSWERS].join(', '));
    if (request.method !== 'OPTIONS') return false;
    answerPreflight(response);
    return true;
  };
};

/** The origin of the pages that this door serves, as the browser that asked names it. */
const ownOrigin = ({ headers, socket }: IncomingMessage): string =>
  `${socket instanceof TLSSocket ? 'https' : 'http'}://${headers.host}`;

const isLoopbackHost = (host: string | undefined): boolean => {
  const [, bracketed, plain] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(host ?? '') ?? [];
  return isLoopback((bracketed ?? plain ?? '').toLowerCase());
};

const answerPreflight = (response: ServerResponse) => {
  response.writeHead(204, {
    'access-control-allow-methods': cors.allowedMethods.join(', '),
    'access-control-allow-headers': [...cors.allowedHeaders, ...OWN_HEADERS].join(', '),
    'access-control-max-age': String(PREFLIGHT_SECONDS),
  });
  response.end();
};

/** Answers a request with JSON. */
export const answerJson = (response: ServerResponse, status: number, body: object): void => {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
};
