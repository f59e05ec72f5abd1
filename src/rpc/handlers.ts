import type {
  DescMethod,
  DescMethodServerStreaming,
  DescService,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf';
import type { Call } from './call.ts';

type Handler<M extends DescMethod> =
  M extends DescMethodServerStreaming<infer I, infer O>
    ? (request: MessageShape<I>, call: Call) => AsyncIterable<MessageInitShape<O>>
    : (request: MessageShape<M['input']>, call: Call) => Promise<MessageInitShape<M['output']>>;

/** The implementation of one service: a function per RPC, named as in its generated descriptor. */
export type ServiceHandlers<S extends DescService> = { [K in keyof S['method']]: Handler<S['method'][K]> };

/** A handler without its types, as the doors and the pipeline see it. */
export type AnyHandler = (request: never, call: Call) => Promise<object> | AsyncIterable<object>;

/** A service together with its handlers. */
export interface Implementation {
  readonly service: DescService;
  readonly handlers: Readonly<Record<string, AnyHandler>>;
}

/** Pairs a service with its handlers, checked against each other. */
export const implement = <S extends DescService>(service: S, handlers: ServiceHandlers<S>): Implementation => ({
  service,
  handlers: handlers as unknown as Readonly<Record<string, AnyHandler>>,
});
