import {
  create,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type Client, Metadata, type ServiceError } from '@grpc/grpc-js';
import { readErrorInfo } from '../rpc/errors.ts';

/** What goes with a call besides its request. */
export interface Envelope {
  /** A user's id; absent: the system acts for itself. */
  readonly actor?: string | undefined;
  readonly correlationId?: string;
  /** Milliseconds until the deadline; absent for streams. */
  readonly timeoutMs?: number;
  /** After how many milliseconds the client leaves. */
  readonly leaveAfterMs?: number | null;
}

/** A call that failed. */
export class Failed extends Error {
  /** The contract's reason, or `code N` for a failure that has none. */
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** The wait that the service asks for, in milliseconds; 0 when it says nothing. */
  readonly pushbackMs: number;

  constructor(method: DescMethod, error: ServiceError) {
    const info = readErrorInfo(error);
    const reason = info?.reason ?? `code ${error.code}`;
    super(`${method.parent.name}.${method.name}: ${reason}, ${error.details}`);
    this.name = 'Failed';
    this.reason = reason;
    this.metadata = info?.metadata ?? {};
    this.pushbackMs = Math.max(0, Number(error.metadata?.get('grpc-retry-pushback-ms')[0] ?? 0));
  }

  /** Whether the service says that the call took no effect. */
  get refused(): boolean {
    return this.metadata.outcome === 'not_applied';
  }

  /** Whether the same call can end otherwise: the service is away, or busy, or nobody knows how it ended. */
  get passing(): boolean {
    return PASSING.test(this.reason);
  }
}

const PASSING = /^(code (1|2|4|8|13|14)|OVERLOADED|CONTENTION|DATABASE_UNAVAILABLE|SHUTTING_DOWN|DEADLINE|INTERNAL)$/;

const path = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`;
const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes);
const asIs = (bytes: Buffer): Buffer => bytes;

/** What a call was answered with. */
export interface Answered<M extends DescMethod> {
  readonly message: MessageShape<M['output']>;
  readonly bytes: Buffer;
}

/** A service as one caller reaches it: on a channel of its own. */
export class Door {
  readonly #channel: Client;
  readonly #token: () => Promise<string | null>;

  constructor(channel: Client, token: () => Promise<string | null> = async () => null) {
    this.#channel = channel;
    this.#token = token;
  }

  /** @throws Failed */
  async call<M extends DescMethodUnary>(
    method: M,
    request: MessageInitShape<M['input']>,
    envelope: Envelope = {},
  ): Promise<Answered<M>> {
    const metadata = await this.#metadata(envelope);
    const { timeoutMs = 10_000, leaveAfterMs = null } = envelope;
    return new Promise((resolve, reject) => {
      const call = this.#channel.makeUnaryRequest(
        path(method),
        toBuffer,
        asIs,
        toBinary(method.input, create(method.input, request)),
        metadata,
        { deadline: Date.now() + timeoutMs },
        (error, bytes) => {
          if (error) reject(new Failed(method, error));
          else resolve({ message: fromBinary(method.output, bytes as Buffer) as never, bytes: bytes as Buffer });
        },
      );
      if (leaveAfterMs !== null) setTimeout(() => call.cancel(), leaveAfterMs);
    });
  }

  /** The messages of a stream; it is cancelled when nobody reads on, or the signal aborts. @throws Failed */
  async *stream<M extends DescMethodServerStreaming>(
    method: M,
    request: MessageInitShape<M['input']>,
    envelope: Envelope = {},
    signal?: AbortSignal,
  ): AsyncGenerator<MessageShape<M['output']>> {
    const { timeoutMs } = envelope;
    const call = this.#channel.makeServerStreamRequest(
      path(method),
      toBuffer,
      asIs,
      toBinary(method.input, create(method.input, request)),
      await this.#metadata(envelope),
      timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs },
    );
    const cancel = () => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      signal?.throwIfAborted();
      for await (const bytes of call) yield fromBinary(method.output, bytes as Buffer) as MessageShape<M['output']>;
    } catch (error) {
      throw 'code' in (error as object) ? new Failed(method, error as ServiceError) : error;
    } finally {
      signal?.removeEventListener('abort', cancel);
      // The cancelled rest of a stream is nobody's error.
      call.on('error', () => {});
      call.cancel();
    }
  }

  close(): void {
    this.#channel.close();
  }

  async #metadata({ actor, correlationId }: Envelope): Promise<Metadata> {
    const metadata = new Metadata();
    const token = await this.#token();
    if (token !== null) metadata.set('authorization', `Bearer ${token}`);
    if (actor !== undefined) metadata.set('x-actor-id', actor);
    if (correlationId !== undefined) metadata.set('x-correlation-id', correlationId);
    return metadata;
  }
}
