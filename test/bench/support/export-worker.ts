// Streams exports as a client of grpc-js does, one after the other in each of several loops, until it is told to stop.

import { create, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { ExportService } from '../../../src/gen/jeex/persistence/v1/export_service_pb.js';
import { answerParent } from './worker.ts';

/** What a worker is asked: to stream exports, each in a loop of its own, or to stop. */
export type ExportQuestion =
  | {
      readonly address: string;
      readonly headers: Readonly<Record<string, string>>;
      readonly exports: readonly { readonly projectId: string; readonly id: string }[];
    }
  | 'stop';

/** Bytes that have arrived so far. */
export type Streamed = number;

const { streamExportContent } = ExportService.method;
const PATH = `/${ExportService.typeName}/${streamExportContent.name}`;
const same = (bytes: Buffer): Buffer => bytes;

let going = true;
let bytes = 0;
let loops: Promise<unknown> = Promise.resolve();

const loop = async (client: Client, metadata: Metadata, body: Buffer): Promise<void> => {
  while (going) {
    const stream = client.makeServerStreamRequest(PATH, same, same, body, metadata);
    for await (const message of stream) {
      bytes += (message as Buffer).byteLength;
      if (!going) break;
    }
    stream.cancel();
  }
};

answerParent<ExportQuestion, Streamed>(async (question) => {
  if (question === 'stop') {
    going = false;
    await loops;
    return bytes;
  }
  going = true;
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(question.headers)) metadata.set(name, value);
  const options = { 'grpc.use_local_subchannel_pool': 1, 'grpc.max_receive_message_length': -1 };
  const started = question.exports.map((own) => {
    const client = new Client(question.address, credentials.createInsecure(), options);
    const body = Buffer.from(toBinary(streamExportContent.input, create(streamExportContent.input, own)));
    return loop(client, metadata, body).finally(() => client.close());
  });
  loops = Promise.all(started);
  loops.catch(() => {});
  return bytes;
});
