// Calls a server as a client of grpc-js does, for the process that has started this one: a load comes in, its outcome goes out.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { AgentExecutionService } from '../../../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { type Load, type Outcome, type Request, tolerance } from './load.ts';
import { answerParent } from './worker.ts';

const MOST_CONNECTIONS = 8;
/** At a rate, how often calls are sent that have become due, in milliseconds. */
const TICK_MS = 1;
const same = (bytes: Buffer): Buffer => bytes;

const connect = ({ address, callers }: Load): Client[] =>
  Array.from(
    { length: Math.min(callers, MOST_CONNECTIONS) },
    () => new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 }),
  );

/** The request with its stamp replaced by something no other call sends. */
const stamped = ({ body, stamp }: Request): Buffer => {
  const bytes = Buffer.from(body);
  if (stamp === undefined) return bytes;
  bytes.write(randomBytes(stamp.length).toString('hex').slice(0, stamp.length), bytes.indexOf(stamp), 'latin1');
  return bytes;
};

const { completeExecution } = AgentExecutionService.method;
const COMPLETE = `/${AgentExecutionService.typeName}/${completeExecution.name}`;

/** What completes the execution that was created, and started, with an answer. */
const completionOf = (answer: Buffer): Buffer => {
  const { execution, leaseToken } = fromBinary(AgentExecutionService.method.createExecution.output, answer);
  const { projectId = '', id = '' } = execution ?? {};
  const output = { contentType: 'text/plain', data: Buffer.from(id) };
  return Buffer.from(
    toBinary(completeExecution.input, create(completeExecution.input, { projectId, id, leaseToken, output })),
  );
};

const run = async (load: Load): Promise<Outcome> => {
  const clients = connect(load);
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(load.headers)) metadata.set(name, value);
  const { deadlineMs } = load;
  const options = () => (deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs });
  const took: number[] = [];
  const failed: Record<string, number> = {};
  const count = (reason: string) => {
    failed[reason] = (failed[reason] ?? 0) + 1;
  };
  /** Sends the call with a number, and counts how long it takes from a moment of `performance.now()` on. */
  const send = (i: number, since: number): Promise<void> =>
    new Promise((resolve) => {
      const request = load.requests[i % load.requests.length] as Request;
      const client = clients[i % clients.length] as Client;
      const call = (path: string, body: Buffer, onAnswer: (answer: Buffer) => void) =>
        client.makeUnaryRequest(path, same, same, body, metadata, options(), (error: ServiceError | null, answer) => {
          if (!error) return onAnswer(answer as Buffer);
          count(status[error.code] ?? String(error.code));
          resolve();
        });
      const end = () => {
        took.push(performance.now() - since);
        resolve();
      };
      call(request.path, stamped(request), (answer) => {
        if (request.completes) return call(COMPLETE, completionOf(answer), end);
        if (Math.abs(answer.byteLength - request.answerBytes) <= tolerance(request.answerBytes)) return end();
        count('a wrong answer');
        resolve();
      });
    });
  try {
    const began = performance.now();
    await (load.rate === undefined ? inTurn(load, send) : atRate(load, load.rate, send));
    return { answered: took.length, failed, seconds: (performance.now() - began) / 1000, took };
  } finally {
    for (const client of clients) client.close();
  }
};

type Send = (i: number, since: number) => Promise<void>;

const inTurn = async ({ callers, calls }: Load, send: Send): Promise<void> => {
  let next = 0;
  const caller = async () => {
    while (next < calls) await send(next++, performance.now());
  };
  await Promise.all(Array.from({ length: callers }, caller));
};

const atRate = async ({ calls, callers }: Load, rate: number, send: Send): Promise<void> => {
  const began = performance.now();
  const running = new Set<Promise<void>>();
  let sent = 0;
  while (sent < calls) {
    const due = Math.min(calls, Math.floor(((performance.now() - began) / 1000) * rate) + 1);
    for (; sent < due && running.size < callers; sent++) {
      const call = send(sent, began + (sent / rate) * 1000);
      running.add(call);
      call.then(() => running.delete(call));
    }
    await sleep(TICK_MS);
  }
  await Promise.all(running);
};

answerParent(run);
