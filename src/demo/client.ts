import {
  create,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type ChannelCredentials, Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { Health } from '../gen/grpc/health/v1/health_pb.js';
import { AgentExecutionService } from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ChangeService } from '../gen/jeex/persistence/v1/change_service_pb.js';
import { DocumentService } from '../gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from '../gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService } from '../gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../gen/jeex/persistence/v1/user_service_pb.js';
import { readErrorInfo } from '../rpc/errors.ts';

/** How long a call may take, in milliseconds. */
const TIMEOUT_MS = 15_000;

/** A call that the service refused, or that never reached it. */
export class CallRefused extends Error {
  /** The reason of the contract, such as VERSION_CONFLICT; empty when the service did not answer. */
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(method: DescMethod, error: ServiceError) {
    const info = readErrorInfo(error);
    super(`${method.parent.name}.${method.name}: ${info ? `${info.reason}, ` : ''}${error.details || error.message}`);
    this.name = 'CallRefused';
    this.reason = info?.reason ?? '';
    this.metadata = info?.metadata ?? {};
  }
}

type Call<M> = M extends DescMethod & { methodKind: 'unary' }
  ? (request?: MessageInitShape<M['input']>) => Promise<MessageShape<M['output']>>
  : M extends DescMethod
    ? (request?: MessageInitShape<M['input']>) => AsyncIterable<MessageShape<M['output']>>
    : never;

type ServiceClient<S extends DescService> = { readonly [K in keyof S['method']]: Call<S['method'][K]> };

/** For whom, and as part of what, calls are made. */
interface Identity {
  /** A user's id; absent: the system acts for itself. */
  readonly actor?: string;
  readonly correlationId?: string;
}

/** What goes with every call. */
interface Headers extends Identity {
  readonly token?: string | null | undefined;
}

const metadataOf = ({ actor, correlationId, token }: Headers): Metadata => {
  const metadata = new Metadata();
  if (token) metadata.set('authorization', `Bearer ${token}`);
  if (actor) metadata.set('x-actor-id', actor);
  if (correlationId) metadata.set('x-correlation-id', correlationId);
  return metadata;
};

const path = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`;
const encode = (method: DescMethod, request: Record<string, unknown>): Uint8Array =>
  toBinary(method.input, create(method.input, request));
const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes);
const asIs = (bytes: Buffer): Buffer => bytes;

const unary =
  (channel: Client, method: DescMethod, identity: Headers) =>
  (request: Record<string, unknown> = {}) =>
    new Promise((resolve, reject) => {
      channel.makeUnaryRequest(
        path(method),
        toBuffer,
        asIs,
        encode(method, request),
        metadataOf(identity),
        { deadline: Date.now() + TIMEOUT_MS },
        (error, bytes) =>
          error ? reject(new CallRefused(method, error)) : resolve(fromBinary(method.output, bytes as Buffer)),
      );
    });

const stream = (channel: Client, method: DescMethod, identity: Headers) =>
  async function* (request: Record<string, unknown> = {}) {
    const call = channel.makeServerStreamRequest(
      path(method),
      toBuffer,
      asIs,
      encode(method, request),
      metadataOf(identity),
      { deadline: Date.now() + TIMEOUT_MS },
    );
    try {
      for await (const bytes of call) yield fromBinary(method.output, bytes as Buffer);
    } catch (error) {
      throw new CallRefused(method, error as ServiceError);
    } finally {
      call.cancel();
    }
  };

const clientOf = <S extends DescService>(service: S, channel: Client, identity: Headers): ServiceClient<S> =>
  Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      (method.methodKind === 'unary' ? unary : stream)(channel, method, identity),
    ]),
  ) as unknown as ServiceClient<S>;

const servicesOn = (channel: Client, identity: Headers) => ({
  health: clientOf(Health, channel, identity),
  users: clientOf(UserService, channel, identity),
  projects: clientOf(ProjectService, channel, identity),
  documents: clientOf(DocumentService, channel, identity),
  executions: clientOf(AgentExecutionService, channel, identity),
  exports: clientOf(ExportService, channel, identity),
  changes: clientOf(ChangeService, channel, identity),
});

/** Every service of the contract, called with one identity; a call throws `CallRefused`. */
export type Services = ReturnType<typeof servicesOn>;

export interface Connection {
  as(identity: Identity): Services;
  close(): void;
}

/** How a service is reached that asks for TLS or for a token. */
export interface Entrance {
  readonly credentials?: ChannelCredentials;
  readonly token?: string | null;
}

/** A stock gRPC channel to `host:port`; it connects with the first call. */
export const connect = (address: string, { credentials: given, token }: Entrance = {}): Connection => {
  const channel = new Client(address, given ?? credentials.createInsecure());
  return { as: (identity) => servicesOn(channel, { ...identity, token }), close: () => channel.close() };
};
