// Watches projects as clients of grpc-js do, and tells how long after its commit each change has arrived.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Client, type ClientReadableStream, credentials, Metadata } from '@grpc/grpc-js';
import { ChangeService } from '../../../src/gen/jeex/persistence/v1/change_service_pb.js';
import { answerParent } from './worker.ts';

/** What a worker is asked: to watch more projects, or for what has arrived since it was asked last. */
export type WatchQuestion =
  | {
      readonly watch: readonly string[];
      readonly address: string;
      readonly headers: Readonly<Record<string, string>>;
    }
  | 'arrived';

/** What has arrived. */
export interface Arrived {
  /** Streams that are open. */
  readonly open: number;
  /** Milliseconds from the moment each change says it was made, within its transaction, to its arrival. */
  readonly took: readonly number[];
  /** Why streams have ended. */
  readonly ended: readonly string[];
}

/** Less than the service grants a connection. */
const STREAMS_PER_CONNECTION = 200;
/** Streams that are opened at a time. */
const AT_ONCE = 100;
/** How long, in milliseconds, the first event may take. */
const FIRST_MS = 60_000;

const { watchProject } = ChangeService.method;
const PATH = `/${ChangeService.typeName}/${watchProject.name}`;
const same = (bytes: Buffer): Buffer => bytes;

const clients: Client[] = [];
const ended: string[] = [];
let took: number[] = [];
let open = 0;

const clientFor = (address: string): Client => {
  if (open % STREAMS_PER_CONNECTION === 0 || clients.length === 0) {
    const options = { 'grpc.use_local_subchannel_pool': 1, 'grpc.max_receive_message_length': -1 };
    clients.push(new Client(address, credentials.createInsecure(), options));
  }
  return clients.at(-1) as Client;
};

const note = (bytes: Buffer): void => {
  const { event } = fromBinary(watchProject.output, bytes);
  if (event.case !== 'change' || !event.value.createTime) return;
  const { seconds, nanos } = event.value.createTime;
  took.push(performance.timeOrigin + performance.now() - (Number(seconds) * 1e3 + nanos / 1e6));
};

/** Resolves with the first event. */
const watchOne = (address: string, metadata: Metadata, projectId: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const body = Buffer.from(toBinary(watchProject.input, create(watchProject.input, { projectId })));
    const stream: ClientReadableStream<Buffer> = clientFor(address).makeServerStreamRequest(
      PATH,
      same,
      same,
      body,
      metadata,
    );
    open += 1;
    const late = setTimeout(() => stream.destroy(new Error(`nothing came within ${FIRST_MS} ms`)), FIRST_MS);
    stream.on('data', (bytes: Buffer) => {
      clearTimeout(late);
      note(bytes);
      resolve();
    });
    stream.on('error', (error) => {
      clearTimeout(late);
      open -= 1;
      ended.push(error.message);
      reject(error);
    });
  });

const watchAll = async ({ watch, address, headers }: Exclude<WatchQuestion, 'arrived'>): Promise<void> => {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  for (let i = 0; i < watch.length; i += AT_ONCE) {
    await Promise.all(watch.slice(i, i + AT_ONCE).map((project) => watchOne(address, metadata, project)));
  }
};

answerParent<WatchQuestion, Arrived>(async (question) => {
  if (question !== 'arrived') await watchAll(question);
  const arrived = { open, took, ended: [...ended] };
  took = [];
  return arrived;
});
