import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { clientsOn } from '../../support/service.ts';
import { type Fault, never } from '../fault.ts';
import { openChannelTo, type Replica } from '../replica.ts';
import { append, compare, contentsOf, DOCUMENT, newAppend, newScratch } from '../scratch.ts';
import { insist, isPassing } from '../waiting.ts';

/** Of HTTP/2 (RFC 9113): a frame's header, and the frame that begins an answer. */
const HEADER_BYTES = 9;
const HEADERS = 1;

/** Whether an answer begins in what a server has sent so far; whole frames are forgotten. */
const createLooker = () => {
  let pending: Buffer = Buffer.alloc(0);
  return (chunk: Buffer): boolean => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= HEADER_BYTES) {
      if (pending[3] === HEADERS) return true;
      const length = HEADER_BYTES + pending.readUIntBE(0, 3);
      if (pending.length < length) return false;
      pending = pending.subarray(length);
    }
    return false;
  };
};

/** Passes everything on to a replica, and cuts the connection instead of passing an answer back. */
const openCutter = async ({ grpc }: Replica): Promise<{ address: string; close: () => void }> => {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port: Number(grpc.split(':')[1]), host: '127.0.0.1', noDelay: true });
    const isAnswer = createLooker();
    const cut = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', cut).on('close', () => {
        sockets.delete(socket);
        cut();
      });
    }
    client.on('data', (chunk) => upstream.write(chunk));
    upstream.on('data', (chunk: Buffer) => {
      if (isAnswer(chunk)) cut();
      else client.write(chunk);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
};

const HEAD = 'select head_version as head from jeex.documents where project_id = $1 and document_type = $2';

/** The connection to the caller breaks after the commit and before the answer; the same append is sent again. */
export const replyLost: Fault = {
  name: 'reply-lost',
  what: 'the reply to a caller lost after the commit, and the append sent again',
  batch: 40,
  missing: never,
  strike: async (world, random, times) => {
    const { cluster, clients, signal, until } = world;
    const scratch = await newScratch(world);
    const cutter = await openCutter(random.pick(world.replicas));
    const channel = openChannelTo([cutter.address]);
    const told = new Map<number, string>();
    let [last, lost] = [0, 0];
    const lose = async (): Promise<boolean> => {
      const request = newAppend(scratch);
      const error = await append(clientsOn(channel), scratch, request).then(
        () => new Error('an answer came through'),
        (failed: unknown) => failed,
      );
      if (!isPassing(error)) throw error;
      const [row] = await cluster.ask<{ head: number }>(HEAD, [scratch.projectId, DOCUMENT]);
      const committed = row?.head === last + 1;
      last = await insist(signal, () => append(clients, scratch, request));
      told.set(last, request.content);
      // One that never reached the service does not count.
      if (committed) lost += 1;
      return lost === times;
    };
    try {
      await until(lose, `${times} replies are lost`);
    } finally {
      channel.close();
      cutter.close();
    }
    return { times: lost, broken: compare(await contentsOf(world, scratch), told) };
  },
};
