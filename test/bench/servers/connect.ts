// The service's handlers and pipeline behind connect-node's gRPC, with a transaction for each call.

import { once } from 'node:events';
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { create, type DescMessage, type DescMethod, type Message, type MessageInitShape } from '@bufbuild/protobuf';
import { Code, ConnectError, type HandlerContext, type MethodImpl } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { MAX_MESSAGE_BYTES } from '../../../src/rpc/limits.ts';
import { serveUntilInputEnds } from './ready.ts';
import { type SameMethod, sameHandlers } from './same-handlers.ts';

const deadlineOf = (context: HandlerContext): number | null => {
  const remaining = context.timeoutMs();
  return remaining === undefined ? null : Date.now() + remaining;
};

const implementationOf = ({ method, answer }: SameMethod): MethodImpl<DescMethod> => {
  const unary = async (request: Message, context: HandlerContext) => {
    try {
      return await answer({
        header: (name) => context.requestHeader.get(name) ?? undefined,
        deadline: deadlineOf(context),
        onGone: (gone) => context.signal.addEventListener('abort', gone, { once: true }),
        codec: {
          decode: () => request,
          encode: (made) => create(method.output, made as MessageInitShape<DescMessage>),
        },
      });
    } catch (failure) {
      throw new ConnectError(String(failure), Code.Internal);
    }
  };
  return unary as unknown as MethodImpl<DescMethod>;
};

const methods = await sameHandlers();
const server = createServer(
  connectNodeAdapter({
    connect: false,
    grpcWeb: false,
    acceptCompression: [],
    readMaxBytes: MAX_MESSAGE_BYTES,
    routes: (router) => {
      for (const method of methods) router.rpc(method.method, implementationOf(method));
    },
  }),
);
server.listen(0, '127.0.0.1');
await once(server, 'listening');
await serveUntilInputEnds(`127.0.0.1:${(server.address() as AddressInfo).port}`, () => void server.close());
