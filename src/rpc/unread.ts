import type { ServerResponse } from 'node:http';
import { constants, type ServerHttp2Stream } from 'node:http2';
import type { ServerInterceptingCall, ServerInterceptingCallInterface, ServerInterceptor } from '@grpc/grpc-js';
import { streamOf } from './arrival.ts';
import { MAX_UNREAD_BYTES, SLOW_READER_MS } from './limits.ts';

const LOOK_EVERY_MS = 1000;

/** What clients have been answered and have not taken in. */
export interface Unread {
  /** Counts the messages and ends of a gRPC server's calls, from when they are written until they have left. */
  readonly interceptor: ServerInterceptor;
  /** Counts what an HTTP server answers a request with. */
  watch(response: ServerResponse): void;
  stop(): void;
}

type Call = ServerInterceptingCallInterface;

/** A message, or the end of a call, on its way to a client. */
interface Sent {
  readonly stream: ServerHttp2Stream;
  readonly bytes: number;
  /** By `performance.now()`. */
  readonly since: number;
}

/**
 * Bounds what clients leave unread: who takes in nothing for `slowMs` milliseconds is cut off, and so is whoever has been slowest
 * when all together leave more than `maxBytes`. A client that never opens its window would else keep what it was answered in
 * the service's memory for as long as it likes.
 */
export const limitUnread = (slowMs = SLOW_READER_MS, maxBytes = MAX_UNREAD_BYTES): Unread => {
  const messages = createMessages(slowMs, maxBytes);
  const responses = createResponses(slowMs);
  const look = () => {
    const now = performance.now();
    messages.shed(now);
    responses.shed(now, maxBytes - messages.bytes());
  };
  const timer = setInterval(look, Math.min(LOOK_EVERY_MS, slowMs)).unref();
  return { interceptor: messages.interceptor, watch: responses.watch, stop: () => clearInterval(timer) };
};

const createMessages = (slowMs: number, maxBytes: number) => {
  /** The oldest first. */
  const sent = new Set<Sent>();
  let bytes = 0;

  const add = (stream: ServerHttp2Stream, length: number): Sent => {
    const message = { stream, bytes: length, since: performance.now() };
    sent.add(message);
    bytes += length;
    if (bytes > maxBytes) shed(message.since);
    return message;
  };

  const forget = (message: Sent) => {
    if (sent.delete(message)) bytes -= message.bytes;
  };

  const shed = (now: number) => {
    // A message of a call that has ended is never called back.
    for (const message of sent) if (message.stream.closed) forget(message);
    for (const message of sent) {
      if (now - message.since < slowMs && bytes <= maxBytes) return;
      forget(message);
      message.stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    }
  };

  const interceptor: ServerInterceptor = (_method, call) => {
    const stream = streamOf(call);
    const send = call.sendMessage.bind(call);
    const end = call.sendStatus.bind(call);
    const sendMessage: Call['sendMessage'] = (message, left) => {
      const own = add(stream, Buffer.isBuffer(message) ? message.length : 0);
      send(message, () => {
        forget(own);
        left();
      });
    };
    // A window that is shut holds up a call's end too, though no byte of it counts.
    const sendStatus: Call['sendStatus'] = (status) => {
      const own = add(stream, 0);
      stream.once('close', () => forget(own));
      end(status);
    };
    return Object.assign(call, { sendMessage, sendStatus }) as unknown as ServerInterceptingCall;
  };
  return { interceptor, shed, bytes: () => bytes };
};

/** Until when a response has gone down, and what it has left since, in bytes. */
interface Waiting {
  readonly length: number;
  /** By `performance.now()`. */
  readonly since: number;
}

const createResponses = (slowMs: number) => {
  const waiting = new Map<ServerResponse, Waiting>();

  /** Since when a client has taken in nothing of what waits for it. */
  const stuckSince = (response: ServerResponse, now: number): number => {
    const before = waiting.get(response);
    const length = response.writableLength;
    const moved = before === undefined || length === 0 || before.length === 0 || length < before.length;
    const since = moved ? now : before.since;
    waiting.set(response, { length, since });
    return since;
  };

  return {
    watch: (response: ServerResponse) => {
      waiting.set(response, { length: 0, since: 0 });
      response.once('close', () => waiting.delete(response));
    },
    shed: (now: number, maxBytes: number) => {
      let left = 0;
      for (const response of waiting.keys()) {
        const since = stuckSince(response, now);
        left += response.writableLength;
        const over = response.writableLength > 0 && left > maxBytes;
        if (over || now - since >= slowMs) response.destroy();
      }
    },
  };
};
