import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Driver, type Load, merged, type Outcome, type Request, tolerance } from './load.ts';
import { PATHS, programIn } from './programs.ts';

const execute = promisify(execFile);

/** A process sends one request again and again, so that as many as this call at once for different projects. */
const MOST_PROCESSES = 8;
/** More than the slowest run takes, in milliseconds. */
const TIMEOUT_MS = 300_000;
const FRAME_BYTES = 5;
/** Less than the service grants one. */
const STREAMS_PER_CONNECTION = 100;

/** A message as gRPC sends it: not compressed, its length before it. */
const framed = (body: Uint8Array): Buffer => {
  const frame = Buffer.alloc(FRAME_BYTES + body.byteLength);
  frame.writeUInt32BE(body.byteLength, 1);
  frame.set(body, FRAME_BYTES);
  return frame;
};

/** h2load, where it is installed: it takes a tenth of what a client in Node takes from the processors, which are shared. */
export const createH2load = (folder: string, signal: AbortSignal): Driver | null => {
  const program = programIn('h2load', PATHS);
  if (program === null) return null;
  return { name: 'h2load', run: (load) => runAll(load, { program, folder, signal }) };
};

interface Tools {
  readonly program: string;
  readonly folder: string;
  readonly signal: AbortSignal;
}

const runAll = async (load: Load, tools: Tools): Promise<Outcome> => {
  const processes = Math.min(load.callers, load.calls, load.requests.length, MOST_PROCESSES);
  const shareOf = (whole: number, i: number) =>
    Math.floor((whole * (i + 1)) / processes) - Math.floor((whole * i) / processes);
  const share = (i: number): Load => ({
    ...load,
    requests: [load.requests[i] as Request],
    callers: shareOf(load.callers, i),
    calls: shareOf(load.calls, i),
    ...(load.rate !== undefined && { rate: load.rate / processes }),
  });
  return merged(await Promise.all(Array.from({ length: processes }, (_, i) => runOne(share(i), tools))));
};

const runOne = async (load: Load, { program, folder, signal }: Tools): Promise<Outcome> => {
  const id = randomUUID();
  const [body, log] = [join(folder, `${id}.body`), join(folder, `${id}.log`)];
  const [request] = load.requests as readonly [Request];
  await writeFile(body, framed(request.body));
  const headers = {
    'content-type': 'application/grpc',
    te: 'trailers',
    ...(load.deadlineMs !== undefined && { 'grpc-timeout': `${load.deadlineMs}m` }),
    ...load.headers,
  };
  const connections = Math.ceil(load.callers / STREAMS_PER_CONNECTION);
  const streams = Math.ceil(load.callers / connections);
  const args = [
    ...[
      '--requests',
      String(load.calls),
      '--clients',
      String(connections),
      '--max-concurrent-streams',
      String(streams),
    ],
    ...['--data', body, '--log-file', log],
    ...(load.rate === undefined ? [] : ['--rps', String(load.rate / connections)]),
    ...Object.entries(headers).flatMap(([name, value]) => ['--header', `${name}: ${value}`]),
    `http://${load.address}${request.path}`,
  ];
  try {
    const { stdout } = await execute(program, args, { signal, timeout: TIMEOUT_MS, killSignal: 'SIGKILL' });
    return outcomeOf(request, load.calls, stdout, await readFile(log, 'utf8'));
  } finally {
    await Promise.all([rm(body, { force: true }), rm(log, { force: true })]);
  }
};

/** A refused call has an answer of HTTP and no data: how many there were, the bytes of data tell. */
const outcomeOf = ({ path, answerBytes }: Request, calls: number, stdout: string, log: string): Outcome => {
  const succeeded = Number(/(\d+) succeeded/.exec(stdout)?.[1]);
  const bytes = Number(/\((\d+)\) data/.exec(stdout)?.[1]);
  const each = FRAME_BYTES + answerBytes;
  const answered = Math.min(succeeded, Math.round(bytes / each));
  if (Math.abs(bytes - answered * each) > answered * tolerance(answerBytes)) {
    throw new Error(`${path}: ${bytes} bytes came back, where an answer has ${each}`);
  }
  const rows = log
    .trimEnd()
    .split('\n')
    .map((line) => line.split('\t').map(Number));
  const started = rows.reduce((least, [start = 0]) => Math.min(least, start), Number.POSITIVE_INFINITY);
  const ended = rows.reduce((most, [start = 0, , took = 0]) => Math.max(most, start + took), 0);
  const refused = succeeded - answered;
  const broken = calls - succeeded;
  return {
    answered,
    failed: { ...(refused > 0 && { refused }), ...(broken > 0 && { broken }) },
    seconds: (ended - started) / 1e6,
    took: rows.map(([, , took = 0]) => took / 1e3),
  };
};
