// The service's handlers and pipeline behind grpc-js, with a transaction for each call.

import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { type handleUnaryCall, Server, status } from '@grpc/grpc-js';
import { serveGrpc } from './grpc.ts';
import { type SameMethod, sameHandlers } from './same-handlers.ts';

const raw = (bytes: Buffer): Buffer => bytes;

const handlerOf =
  ({ method, answer }: SameMethod): handleUnaryCall<Buffer, Buffer> =>
  (call, callback) => {
    const deadline = Number(call.getDeadline());
    answer({
      header: (name) => call.metadata.get(name).join(', ') || undefined,
      deadline: Number.isFinite(deadline) ? deadline : null,
      onGone: (gone) => call.on('cancelled', gone),
      codec: {
        decode: () => fromBinary(method.input, call.request),
        encode: (made) =>
          Buffer.from(toBinary(method.output, create(method.output, made as MessageInitShape<DescMessage>))),
      },
    }).then(
      (bytes) => callback(null, bytes),
      (failure) => callback({ code: status.INTERNAL, details: String(failure) }),
    );
  };

const server = new Server();
for (const own of await sameHandlers()) {
  const { name, parent } = own.method;
  const definition = {
    path: `/${parent.typeName}/${name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: raw,
    requestDeserialize: raw,
    responseSerialize: raw,
    responseDeserialize: raw,
  };
  server.addService({ [name]: definition }, { [name]: handlerOf(own) });
}
await serveGrpc(server);
