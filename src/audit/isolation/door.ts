import {
  create,
  type DescMethod,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type ChannelCredentials, Client, Metadata, type ServiceError } from '@grpc/grpc-js';
import { readErrorInfo } from '../../rpc/errors.ts';

/** For whom, and by which caller, a call is made. */
export interface Identity {
  /** A user's id; absent: the system acts for itself. */
  readonly actor?: string | undefined;
  /** Instead of the audit's own token; null: none. */
  readonly token?: string | null;
}

/** What came back, as any client sees it. */
export interface Reply {
  /** OK, the reason of the refusal, or `code N` for a failure without one. */
  readonly outcome: string;
  /** All that a refusal says: code, message, reason, metadata, fields, and the names of its trailers. */
  readonly said: string;
  /** The encoded answer, of a stream its first message; empty for a refusal. */
  readonly bytes: Buffer;
}

export interface DoorOptions {
  readonly address: string;
  readonly credentials: ChannelCredentials;
  /** The bearer token of the audit itself; null while authentication is off. */
  readonly token: string | null;
  /** Ties together, and to nothing else, what the audit writes. */
  readonly correlationId: string;
  /** Told of every answer: what a call has made is to be removed again. */
  readonly onAnswer: (method: DescMethod, bytes: Buffer) => void;
}

const TIMEOUT_MS = 30_000;
const NO_BYTES = Buffer.alloc(0);

const asIs = (bytes: Buffer): Buffer => bytes;

const answered = (bytes: Buffer): Reply => ({ outcome: 'OK', said: '', bytes });

const refused = (error: ServiceError): Reply => {
  const info = readErrorInfo(error);
  const details = error.metadata?.get('grpc-status-details-bin').map((value) => value.toString('latin1'));
  const trailers = Object.keys(error.metadata?.getMap() ?? {}).sort();
  return {
    outcome: info?.reason || `code ${error.code}`,
    said: JSON.stringify([error.code, error.details, info?.reason, info?.metadata, details, trailers]),
    bytes: NO_BYTES,
  };
};

/** A gRPC channel to the service under audit, on which every call answers what came back instead of throwing. */
export class Door {
  readonly #channel: Client;
  readonly #options: DoorOptions;

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#channel = new Client(options.address, options.credentials);
  }

  get correlationId(): string {
    return this.#options.correlationId;
  }

  /** Sends an encoded request. */
  async send(method: DescMethod, request: Uint8Array, identity: Identity): Promise<Reply> {
    const reply = await (method.methodKind === 'unary' ? this.#unary : this.#first).call(
      this,
      method,
      request,
      identity,
    );
    if (reply.outcome === 'OK') this.#options.onAnswer(method, reply.bytes);
    return reply;
  }

  call(method: DescMethod, request: Message, identity: Identity): Promise<Reply> {
    return this.send(method, toBinary(method.input, request), identity);
  }

  /** A call whose answer is needed to go on. @throws Error when it is refused */
  async ask<M extends DescMethod>(
    method: M,
    request: MessageInitShape<M['input']>,
    identity: Identity = {},
  ): Promise<MessageShape<M['output']>> {
    const reply = await this.call(method, create(method.input, request), identity);
    if (reply.outcome !== 'OK') {
      throw new Error(`the audit cannot go on: ${method.parent.name}.${method.name} was refused with ${reply.said}`);
    }
    return fromBinary(method.output, reply.bytes) as MessageShape<M['output']>;
  }

  close(): void {
    this.#channel.close();
  }

  #metadata({ actor, token = this.#options.token }: Identity): Metadata {
    const metadata = new Metadata();
    metadata.set('x-correlation-id', this.#options.correlationId);
    if (actor !== undefined) metadata.set('x-actor-id', actor);
    if (token !== null) metadata.set('authorization', `Bearer ${token}`);
    return metadata;
  }

  #unary(method: DescMethod, request: Uint8Array, identity: Identity): Promise<Reply> {
    return new Promise((resolve) => {
      this.#channel.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        (bytes: Uint8Array) => Buffer.from(bytes),
        asIs,
        request,
        this.#metadata(identity),
        { deadline: Date.now() + TIMEOUT_MS },
        (error, bytes) => resolve(error ? refused(error) : answered(bytes as Buffer)),
      );
    });
  }

  /** A stream is answered by its first message, or by its end. */
  async #first(method: DescMethod, request: Uint8Array, identity: Identity): Promise<Reply> {
    const call = this.#channel.makeServerStreamRequest(
      `/${method.parent.typeName}/${method.name}`,
      (bytes: Uint8Array) => Buffer.from(bytes),
      asIs,
      request,
      this.#metadata(identity),
      { deadline: Date.now() + TIMEOUT_MS },
    );
    // The cancelled rest of a stream is nobody's error.
    call.on('error', () => {});
    try {
      for await (const bytes of call) return answered(bytes as Buffer);
      return answered(NO_BYTES);
    } catch (error) {
      return refused(error as ServiceError);
    } finally {
      call.cancel();
    }
  }
}
