import { type Server, ServerCredentials } from '@grpc/grpc-js';
import { serveUntilInputEnds } from './ready.ts';

/** Serves a server of grpc-js until standard input ends. */
export const serveGrpc = async (server: Server): Promise<void> => {
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  await serveUntilInputEnds(`127.0.0.1:${port}`, () => server.forceShutdown());
};
