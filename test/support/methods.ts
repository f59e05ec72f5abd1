import { create, type DescMethod, type DescService, type Message } from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import { SERVICES } from '../../src/service.ts';
import { CallError, type CallOptions, clientOf } from './client.ts';
import type { TestService } from './service.ts';

/** A request as a plain object, its fields in camel case. */
export type Fields = Readonly<Record<string, unknown>>;

/** Every RPC of the contract. */
export const METHODS: readonly DescMethod[] = SERVICES.flatMap((each: DescService) => each.methods);

/** `Service/Method`. */
export const keyOf = (method: DescMethod): string => `${method.parent.name}/${method.name}`;

export const isRead = (method: DescMethod): boolean =>
  method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;

/** The RPC of a `Service/Method`. */
export const methodOf = (key: string): DescMethod => {
  const found = METHODS.find((method) => keyOf(method) === key);
  if (!found) throw new Error(`there is no ${key}`);
  return found;
};

type AnyCall = (request: object, options: CallOptions) => Promise<Message> | AsyncIterable<Message>;

/** Calls any RPC; a stream answers its first message, or an empty one when it ends without. */
export const callOf =
  (service: Pick<TestService, 'channel'>, method: DescMethod) =>
  async (request: object, options: CallOptions = {}): Promise<Message> => {
    const client = clientOf(method.parent, service.channel) as unknown as Record<string, AnyCall>;
    const answer = (client[method.localName] as AnyCall)(request, options);
    if (!(Symbol.asyncIterator in answer)) return await answer;
    for await (const message of answer) return message;
    return create(method.output);
  };

/** The reason a call is refused with; `OK` when it is not. */
export const outcomeOf = async (call: Promise<unknown>): Promise<string> => {
  try {
    await call;
    return 'OK';
  } catch (error) {
    if (error instanceof CallError) return error.reason || `code ${error.code}`;
    throw error;
  }
};

/** All that a client sees of a refusal, with the id that was asked for taken out. @throws Error when the call is answered */
export const refusalSeen = async (call: Promise<unknown>, asked: string): Promise<string> => {
  const error = await call.then(
    () => null,
    (thrown) => thrown,
  );
  if (!(error instanceof CallError)) throw error ?? new Error('the call was not refused');
  const { trailers, ...seen } = error;
  const details = trailers.get('grpc-status-details-bin').map(String);
  return JSON.stringify({ ...seen, details, names: Object.keys(trailers.getMap()) }).replaceAll(asked, 'ID');
};

const OWN_ID = /^(Get|Delete|Undelete|Purge)Project$/;

/** The request about another project; null when the RPC is about none. */
export const inProject = (method: DescMethod, request: Fields, projectId: string): Fields | null => {
  if (method.input.fields.some(({ name }) => name === 'project_id')) return { ...request, projectId };
  if (OWN_ID.test(method.name)) return { ...request, id: projectId };
  if (method.name === 'UpdateProject')
    return { ...request, project: { ...(request.project as Fields), id: projectId } };
  if (method.name === 'WatchProjects') return { cursors: [{ projectId, afterRevision: 0n }] };
  return null;
};

/** The RPCs that are about one project. */
export const PROJECT_METHODS: readonly DescMethod[] = METHODS.filter((method) => inProject(method, {}, '') !== null);
