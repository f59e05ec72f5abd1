import { randomUUID } from 'node:crypto';
import type { DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { ProjectService, Role } from '../gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../gen/jeex/persistence/v1/user_service_pb.js';
import { type Door, Failed } from './door.ts';
import type { Place } from './history.ts';
import type { Marks } from './marks.ts';
import type { RetryPolicy } from './options.ts';
import { patiently } from './patience.ts';
import { Random } from './random.ts';

/** More than an hour writes. */
const QUOTA = { contentBytes: 2n ** 40n, versions: 100_000_000n, executions: 100_000_000n };
/** Purging a large project takes a while. */
const PURGE_MS = 60_000;
/** How long a service that does not answer is asked to remove something, in milliseconds. */
const REMOVE_MS = 10_000;

/** The projects and users of a run. */
export interface Scratch {
  readonly places: readonly Place[];
  /** Purges the projects and erases the users. @returns what stays, and why */
  remove(): Promise<readonly string[]>;
}

interface Maker {
  readonly door: Door;
  readonly marks: Marks;
  readonly retry: RetryPolicy;
  readonly random: Random;
  /** The ids of what has been made, to be removed again whatever happens. */
  readonly projects: string[];
  readonly users: string[];
}

/** A call that is needed to go on: tried again with the same request id while the service is away. */
const ask = async <M extends DescMethodUnary>(
  { door, marks, retry, random }: Maker,
  method: M,
  request: MessageInitShape<M['input']>,
  actor?: string,
  timeoutMs = 10_000,
): Promise<MessageShape<M['output']>> => {
  const correlationId = marks.correlationId({ operation: 0, attempt: 1 });
  const once = { ...request, requestId: randomUUID() };
  const answer = await patiently(retry, random, () => door.call(method, once, { actor, correlationId, timeoutMs }));
  return answer.message as MessageShape<M['output']>;
};

const makeUser = async (maker: Maker): Promise<string> => {
  const email = `${maker.marks.run}-${randomUUID()}@certify.invalid`;
  const id = (await ask(maker, UserService.method.createUser, { email, name: 'Certify' })).user?.id ?? '';
  maker.users.push(id);
  return id;
};

const makePlace = async (maker: Maker, index: number, stranger: string): Promise<Place> => {
  const [owner = '', editor = '', viewer = ''] = await Promise.all([makeUser(maker), makeUser(maker), makeUser(maker)]);
  const { createProject, setMember, setProjectQuota } = ProjectService.method;
  const { project } = await ask(maker, createProject, { name: maker.marks.name(0), language: 'en' }, owner);
  const id = project?.id ?? '';
  maker.projects.push(id);
  await ask(maker, setMember, { projectId: id, userId: editor, role: Role.EDITOR }, owner);
  await ask(maker, setMember, { projectId: id, userId: viewer, role: Role.VIEWER }, owner);
  await ask(maker, setProjectQuota, { projectId: id, quota: QUOTA });
  return { index, id, users: { owner, editor, viewer, stranger } };
};

/** Goes on where something stays, and tells what. */
const drop = async (left: string[], what: string, work: () => Promise<unknown>): Promise<void> => {
  await work().catch((error: unknown) => {
    if (!(error instanceof Failed)) throw error;
    if (!error.reason.endsWith('_NOT_FOUND')) left.push(`${what} stays: ${error.message}`);
  });
};

const remove = async (given: Maker): Promise<readonly string[]> => {
  const maker = { ...given, retry: { ...given.retry, giveUpMs: REMOVE_MS } };
  const left: string[] = [];
  const { purgeProject } = ProjectService.method;
  const { deleteUser } = UserService.method;
  for (const id of maker.projects) {
    await drop(left, `project ${id}`, () => ask(maker, purgeProject, { id }, undefined, PURGE_MS));
  }
  for (const id of maker.users) await drop(left, `user ${id}`, () => ask(maker, deleteUser, { id }));
  return left;
};

/** @throws Failed when they cannot be made; what was made is removed again */
export const makeScratch = async (
  given: Pick<Maker, 'door' | 'marks' | 'retry'>,
  { projects, seed }: { readonly projects: number; readonly seed: number },
): Promise<Scratch> => {
  const maker = { ...given, random: new Random(seed, 0xffff), projects: [], users: [] };
  const places: Place[] = [];
  try {
    const stranger = await makeUser(maker);
    for (let index = 0; index < projects; index++) places.push(await makePlace(maker, index, stranger));
  } catch (error) {
    await remove(maker);
    throw error;
  }
  return { places, remove: () => remove(maker) };
};
