import {
  create,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import {
  type ChannelCredentials,
  Client,
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../src/gen/google/rpc/error_details_pb.js';
import { StatusSchema } from '../../src/gen/google/rpc/status_pb.js';

/** What a call carries besides its message. */
export interface CallOptions {
  readonly actor?: string | undefined;
  readonly correlationId?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds from now. */
  readonly timeout?: number;
  readonly signal?: AbortSignal;
}

/** A failed call, read as any client would: the status, and what its details say. */
export class CallError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly domain: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly fields: readonly string[];
  readonly retryable: boolean;
  readonly trailers: Metadata;

  constructor(error: ServiceError) {
    super(error.details);
    this.name = 'CallError';
    this.code = error.code;
    this.trailers = error.metadata;
    const [bytes] = error.metadata.get('grpc-status-details-bin');
    const details = bytes === undefined ? [] : fromBinary(StatusSchema, bytes as Buffer).details;
    const find = (name: string) => details.find((detail) => detail.typeUrl.endsWith(`/${name}`))?.value;
    const info = find('google.rpc.ErrorInfo');
    const read = info === undefined ? undefined : fromBinary(ErrorInfoSchema, info);
    this.reason = read?.reason ?? '';
    this.domain = read?.domain ?? '';
    this.metadata = read?.metadata ?? {};
    const bad = find('google.rpc.BadRequest');
    this.fields = bad === undefined ? [] : fromBinary(BadRequestSchema, bad).fieldViolations.map(({ field }) => field);
    const retry = find('google.rpc.RetryInfo');
    this.retryable = retry !== undefined && fromBinary(RetryInfoSchema, retry).retryDelay !== undefined;
  }
}

type Unary<M> = M extends DescMethod & { methodKind: 'unary' }
  ? (request?: MessageInitShape<M['input']>, options?: CallOptions) => Promise<MessageShape<M['output']>>
  : M extends DescMethod
    ? (request?: MessageInitShape<M['input']>, options?: CallOptions) => AsyncIterable<MessageShape<M['output']>>
    : never;

/** A function per RPC. */
export type ServiceClient<S extends DescService> = { readonly [K in keyof S['method']]: Unary<S['method'][K]> };

const metadataOf = (options: CallOptions): Metadata => {
  const metadata = new Metadata();
  if (options.actor !== undefined) metadata.set('x-actor-id', options.actor);
  if (options.correlationId !== undefined) metadata.set('x-correlation-id', options.correlationId);
  for (const [name, value] of Object.entries(options.headers ?? {})) metadata.set(name, value);
  return metadata;
};

const callOptions = (options: CallOptions) =>
  options.timeout === undefined ? {} : { deadline: Date.now() + options.timeout };

const serialize = (bytes: Uint8Array): Buffer => Buffer.from(bytes);
const deserialize = (bytes: Buffer): Uint8Array => bytes;

const unary =
  (channel: Client, method: DescMethod) =>
  (request: Record<string, unknown> = {}, options: CallOptions = {}) =>
    new Promise((resolve, reject) => {
      const call = channel.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        serialize,
        deserialize,
        toBinary(method.input, create(method.input, request)),
        metadataOf(options),
        callOptions(options),
        (error, bytes) => {
          if (error) reject(new CallError(error));
          else resolve(fromBinary(method.output, bytes as Uint8Array));
        },
      );
      options.signal?.addEventListener('abort', () => call.cancel(), { once: true });
    });

const stream = (channel: Client, method: DescMethod) =>
  async function* (request: Record<string, unknown> = {}, options: CallOptions = {}) {
    const call = channel.makeServerStreamRequest(
      `/${method.parent.typeName}/${method.name}`,
      serialize,
      deserialize,
      toBinary(method.input, create(method.input, request)),
      metadataOf(options),
      callOptions(options),
    );
    options.signal?.addEventListener('abort', () => call.cancel(), { once: true });
    try {
      for await (const bytes of call) yield fromBinary(method.output, bytes as Uint8Array);
    } catch (error) {
      throw new CallError(error as ServiceError);
    } finally {
      call.cancel();
    }
  };

/** Sends headers with every call. */
const carrying = (headers: Readonly<Record<string, string>>): Interceptor => {
  return (options, next) =>
    new InterceptingCall(next(options), {
      start: (metadata, listener, start) => {
        for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
        start(metadata, listener);
      },
    });
};

/** A channel with stock settings, whose calls all carry some headers; close it with `close()`. */
export const openChannel = (
  address: string,
  headers: Readonly<Record<string, string>> = {},
  security: ChannelCredentials = credentials.createInsecure(),
): Client => new Client(address, security, { interceptors: [carrying(headers)] });

/** A client of one service on a channel. */
export const clientOf = <S extends DescService>(service: S, channel: Client): ServiceClient<S> =>
  Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      method.methodKind === 'unary' ? unary(channel, method) : stream(channel, method),
    ]),
  ) as unknown as ServiceClient<S>;
