import { once } from 'node:events';
import { after } from 'node:test';
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { Client, type ClientReadableStream, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../src/gen/google/rpc/error_details_pb.js';
import { StatusSchema } from '../../src/gen/google/rpc/status_pb.js';
import { createLog } from '../../src/log.ts';
import { Refusal } from '../../src/refusal.ts';
import { createDoors, type DoorOptions, type Doors } from '../../src/rpc/doors.ts';
import type { AnyHandler, Implementation } from '../../src/rpc/handlers.ts';
import { createHealth, type Health } from '../../src/rpc/health.ts';
import { parseAddress } from '../../src/rpc/listen.ts';
import { SERVICES } from '../../src/service.ts';
import { createMeasurements } from '../../src/telemetry/measurements.ts';
import { NO_ACCESS_LOG } from './access.ts';

const ANY_PORT = parseAddress('127.0.0.1:0');

/** Handlers by `Service.method`, for the few methods a test is about; the others refuse. */
export type Answers = Readonly<Record<string, AnyHandler>>;

const refuse = (): Promise<never> => Promise.reject(new Refusal('USER_NOT_FOUND', 'this test has no such method'));

const implementations = (answers: Answers): Implementation[] =>
  SERVICES.map((service) => ({
    service,
    handlers: Object.fromEntries(
      service.methods.map((method) => [method.localName, answers[`${service.name}.${method.localName}`] ?? refuse]),
    ),
  }));

/** What a call that failed answered, in the same form for both doors. */
export interface Refused {
  readonly code: number;
  readonly message: string;
  readonly reason: string | undefined;
  readonly metadata: Record<string, string>;
  readonly fields: string[];
  readonly retry: boolean;
  readonly pushback: string | undefined;
  readonly correlationId: string | undefined;
}

export interface Echo {
  readonly doors: Doors;
  readonly health: Health;
  readonly grpc: string;
  readonly http: string;
  readonly probes: string | null;
  readonly client: Client;
  /** The lines of the log so far. */
  readonly lines: Record<string, unknown>[];
}

/** Both doors on free ports with in-memory handlers, closed after the tests: only the transport is looked at. */
export const useEcho = async (answers: Answers, overrides: Partial<DoorOptions> = {}): Promise<Echo> => {
  const health = createHealth(SERVICES.map(({ typeName }) => typeName));
  const lines: Record<string, unknown>[] = [];
  const log = createLog('debug', { write: (line: string) => lines.push(JSON.parse(line)) });
  const doors = createDoors({
    grpcListen: ANY_PORT,
    httpListen: ANY_PORT,
    healthListen: ANY_PORT,
    tls: null,
    authenticate: null,
    identifyRequest: () => null,
    allowedOrigins: ['https://app.example'],
    implementations: implementations(answers),
    health,
    log,
    accessLog: NO_ACCESS_LOG,
    measurements: createMeasurements(),
    version: '0.0.0-test',
    ...overrides,
  });
  const bound = await doors.start();
  health.setReady(true);
  const client = new Client(bound.grpc, credentials.createInsecure());
  after(async () => {
    client.close();
    await doors.stop(100);
  });
  const http = `${overrides.tls ? 'https' : 'http'}://${bound.http}`;
  return { doors, health, grpc: bound.grpc, http, probes: bound.health, client, lines };
};

const raw = (bytes: Buffer): Buffer => bytes;

const metadataOf = (headers: Record<string, string>): Metadata => {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
};

export const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`;

export interface Answered {
  readonly bytes: Buffer | null;
  readonly error: ServiceError | null;
  readonly headers: Metadata;
}

/** Sends bytes to a unary method over gRPC. */
export const sendGrpc = async (
  client: Client,
  method: DescMethod,
  bytes: Uint8Array,
  headers: Record<string, string> = {},
  options: { deadline?: number } = {},
): Promise<Answered> => {
  const { promise, resolve } = Promise.withResolvers<Omit<Answered, 'headers'>>();
  const call = client.makeUnaryRequest(
    pathOf(method),
    raw,
    raw,
    Buffer.from(bytes),
    metadataOf(headers),
    options,
    (error, value) => resolve({ bytes: value ?? null, error }),
  );
  let received = new Metadata();
  call.on('metadata', (metadata: Metadata) => {
    received = metadata;
  });
  return { ...(await promise), headers: received };
};

/** Calls a unary method over gRPC; throws the ServiceError of a refused call. */
export const callGrpc = async <M extends DescMethod>(
  client: Client,
  method: M,
  request: object,
  headers: Record<string, string> = {},
): Promise<MessageShape<M['output']>> => {
  const { bytes, error } = await sendGrpc(client, method, encode(method, request), headers);
  if (error) throw error;
  return fromBinary(method.output, bytes ?? Buffer.alloc(0)) as MessageShape<M['output']>;
};

/** Opens a server stream over gRPC. */
export const streamGrpc = (
  client: Client,
  method: DescMethod,
  request: object,
  headers: Record<string, string> = {},
): ClientReadableStream<Buffer> =>
  client.makeServerStreamRequest(pathOf(method), raw, raw, Buffer.from(encode(method, request)), metadataOf(headers));

export const encode = (method: DescMethod, request: object): Uint8Array =>
  toBinary(method.input, create(method.input, request as MessageInitShape<DescMessage>));

/** What a call refused over gRPC says. */
export const refusedGrpc = ({ error, headers }: Pick<Answered, 'error' | 'headers'>): Refused => {
  if (!error) throw new Error('the call was not refused');
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  const details = bytes ? fromBinary(StatusSchema, bytes as Buffer).details : [];
  const info = details.map((any) => anyUnpack(any, ErrorInfoSchema)).find((found) => found !== undefined);
  const bad = details.map((any) => anyUnpack(any, BadRequestSchema)).find((found) => found !== undefined);
  return {
    code: error.code,
    message: error.details,
    reason: info?.reason,
    metadata: { ...info?.metadata },
    fields: bad?.fieldViolations.map(({ field }) => field) ?? [],
    retry: details.some((any) => anyUnpack(any, RetryInfoSchema)),
    pushback: error.metadata.get('grpc-retry-pushback-ms')[0]?.toString(),
    correlationId: headers.get('x-correlation-id')[0]?.toString(),
  };
};

interface ConnectErrorJson {
  readonly code: string;
  readonly message?: string;
  readonly details?: { readonly type: string; readonly value: string }[];
}

/** What an error of the Connect protocol says. */
export const refusedConnect = (body: ConnectErrorJson, headers: Headers): Refused => {
  const found = (type: string) => {
    const value = body.details?.find((detail) => detail.type === `google.rpc.${type}`)?.value;
    return value === undefined ? null : Buffer.from(value, 'base64');
  };
  const info = found('ErrorInfo');
  const bad = found('BadRequest');
  const decoded = info && fromBinary(ErrorInfoSchema, info);
  return {
    code: status[body.code.toUpperCase() as keyof typeof status],
    message: body.message ?? '',
    reason: decoded?.reason,
    metadata: { ...decoded?.metadata },
    fields: bad ? fromBinary(BadRequestSchema, bad).fieldViolations.map(({ field }) => field) : [],
    retry: found('RetryInfo') !== null,
    pushback: headers.get('trailer-grpc-retry-pushback-ms') ?? undefined,
    correlationId: headers.get('x-correlation-id') ?? undefined,
  };
};

/** Posts a body to a method over HTTP. */
export const post = (
  http: string,
  method: DescMethod,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
  signal: AbortSignal | null = null,
): Promise<Response> =>
  fetch(http + pathOf(method), {
    method: 'POST',
    body,
    signal,
    headers: { 'content-type': 'application/json', ...headers },
  });

/** What a call refused over HTTP says. */
export const refusedHttp = async (response: Response): Promise<Refused> =>
  refusedConnect((await response.json()) as ConnectErrorJson, response.headers);

/** Resolves with the error or end of a stream. */
export const endOf = async (stream: ClientReadableStream<Buffer>): Promise<Answered> => {
  let headers = new Metadata();
  stream.on('metadata', (metadata: Metadata) => {
    headers = metadata;
  });
  try {
    stream.resume();
    await once(stream, 'end');
    return { bytes: null, error: null, headers };
  } catch (error) {
    return { bytes: null, error: error as ServiceError, headers };
  }
};
