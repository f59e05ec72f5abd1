import { randomUUID } from 'node:crypto';
import { clone, type DescMethod, fromBinary, getOption, type Message } from '@bufbuild/protobuf';
import { Access, access } from '../../gen/jeex/persistence/v1/access_pb.js';
import { isMutation } from '../../rpc/access.ts';
import type { Check, Finding } from './check.ts';
import type { Identity, Reply } from './door.ts';
import { makeRequest } from './requests.ts';
import { factsFor } from './roles.ts';
import { isForNobody, keyOf, type Service } from './service.ts';
import { forgedTokens, goodToken, type Signer } from './tokens.ts';
import { each, holdsRowOf, newWorld, type World } from './world.ts';

const OTHER_CALLER = 'isolation-audit-other';

const has = (fields: readonly { name: string }[], name: string): boolean => fields.some((field) => field.name === name);

/** The request with some of its fields changed. */
const changed = ({ input }: DescMethod, message: Message, fields: Readonly<Record<string, unknown>>): Message =>
  Object.assign(clone(input, message), fields);

const tokens = async ({ door, methods, pair }: Service, signer: Signer): Promise<Finding> => {
  const { facts, owner } = (await pair()).a;
  const forged = await forgedTokens(signer);
  const faults: string[] = [];
  for (const [what, token] of forged) {
    await each(methods, async (method) => {
      const actor = isForNobody(method) ? {} : { actor: owner };
      const { outcome } = await door.call(method, makeRequest(method, facts).message, { ...actor, token });
      if (outcome !== 'UNAUTHENTICATED') faults.push(`${keyOf(method)} answers ${what}: ${outcome}`);
    });
  }
  return { seen: `${[...forged.keys()].join(', ')} × ${methods.length} RPCs`, faults };
};

/** A page token, and what it was given for. */
interface Given {
  readonly method: DescMethod;
  readonly message: Message;
  readonly identity: Identity;
  readonly token: string;
}

/** Whether an RPC lists rows of projects or users, page by page. */
const isList = (method: DescMethod): boolean =>
  has(method.input.fields, 'page_token') &&
  has(method.output.fields, 'next_page_token') &&
  getOption(method, access) !== Access.MONITOR;

const firstPage = async (service: Service, method: DescMethod, identity: Identity, world: World): Promise<Given> => {
  const message = changed(method, makeRequest(method, world.facts).message, { pageSize: 1 });
  const reply = await service.door.call(method, message, identity);
  if (reply.outcome !== 'OK') throw new Error(`${keyOf(method)} answers ${reply.outcome}`);
  const { nextPageToken } = fromBinary(method.output, reply.bytes) as unknown as { nextPageToken: string };
  if (nextPageToken === '') throw new Error(`${keyOf(method)} has no second page, so that nothing is shown`);
  return { method, message, identity, token: nextPageToken };
};

/** The token with one letter changed. */
const tampered = (token: string, at: number): string =>
  `${token.slice(0, at)}${token[at] === 'A' ? 'B' : 'A'}${token.slice(at + 1)}`;

interface Misuse {
  readonly what: string;
  readonly given: Given;
  readonly identity?: Identity;
  readonly token?: string;
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** @param asker the actor of `given` where it has one, another one where it has none */
const misusesOf = (given: Given, system: Given, asker: Identity, b: World, other: string | null): Misuse[] => {
  const { method, token, message } = given;
  const places = [0, Math.floor(token.length / 2), token.length - 1];
  const elsewhere = { ...given.identity, ...(other !== null && { token: other }) };
  return [
    ...places.map((at) => ({ what: 'a tampered token', given, token: tampered(token, at) })),
    ...(isForNobody(method) ? [] : [{ what: "another actor's token", given: system, identity: asker }]),
    ...(other === null ? [] : [{ what: "another caller's token", given, identity: elsewhere }]),
    ...('projectId' in message
      ? [{ what: "another project's token", given: system, fields: { projectId: b.facts.project } }]
      : []),
  ];
};

const pages = async (service: Service): Promise<Finding> => {
  const { a, b } = await service.pair();
  const other = service.signer && (await goodToken(service.signer, OTHER_CALLER));
  const faults: string[] = [];
  const lists = service.methods.filter(isList);
  let uses = 0;
  const send = ({ given, identity = given.identity, token = given.token, fields = {} }: Misuse): Promise<Reply> =>
    service.door.call(given.method, changed(given.method, given.message, { ...fields, pageToken: token }), identity);
  for (const method of lists) {
    const system = await firstPage(service, method, {}, a);
    const asker = { actor: a.owner };
    const given = 'projectId' in system.message ? await firstPage(service, method, asker, a) : system;
    const control = await send({ what: 'its own token', given });
    if (control.outcome !== 'OK') faults.push(`${keyOf(method)} refuses its own token: ${control.outcome}`);
    for (const misuse of misusesOf(given, system, asker, b, other)) {
      const reply = await send(misuse);
      uses += 1;
      if (reply.outcome !== 'INVALID_PAGE_TOKEN')
        faults.push(`${keyOf(method)} answers ${misuse.what}: ${reply.outcome}`);
    }
  }
  return { seen: `${lists.length} lists, ${uses} wrong uses`, faults };
};

/** Whether a reply is the one that was given before, and a new request would have been answered otherwise. */
const isReplay = (reply: Reply, first: Reply, fresh: Reply): boolean =>
  reply.outcome === 'OK' && reply.bytes.equals(first.bytes) && !fresh.bytes.equals(first.bytes);

/** One mutation under one request id: by its own asker, and then by others. */
const replays = async (
  service: Service,
  method: DescMethod,
  world: World,
  other: string | null,
): Promise<string[] | null> => {
  const { b } = await service.pair();
  const identity = { actor: world.owner };
  const { message } = makeRequest(method, await factsFor(service, method, world, identity));
  const request = changed(method, message, { requestId: randomUUID() });
  const send = (who: Identity, what = request) => service.door.call(method, what, who);
  const first = await send(identity);
  if (first.outcome !== 'OK') return null;
  const again = await send(identity);
  const faults = isSame(again, first) ? [] : [`${keyOf(method)} does not repeat its reply to who asked first`];
  const stranger = await send({ actor: b.owner });
  if (stranger.outcome !== 'PROJECT_NOT_FOUND' || holdsRowOf(world, stranger.bytes)) {
    faults.push(`${keyOf(method)} answers a stranger with the request id: ${stranger.outcome}`);
  }
  const fellow = await send({ actor: world.editor });
  const elsewhere = other === null ? null : await send({ ...identity, token: other });
  const fresh = await send(identity, changed(method, request, { requestId: randomUUID() }));
  if (isReplay(fellow, first, fresh)) faults.push(`${keyOf(method)} gives another actor the first one's reply`);
  if (elsewhere && isReplay(elsewhere, first, fresh)) faults.push(`${keyOf(method)} gives another caller the reply`);
  return faults;
};

const isSame = (one: Reply, other: Reply): boolean => one.outcome === other.outcome && one.bytes.equals(other.bytes);

const requestIds = async (service: Service): Promise<Finding> => {
  const world = await newWorld(service.door);
  const other = service.signer && (await goodToken(service.signer, OTHER_CALLER));
  const faults: string[] = [];
  let shown = 0;
  const mutations = service.methods.filter(
    (method) => isMutation(method) && !isForNobody(method) && makeRequest(method, world.facts).used.has('project'),
  );
  await each(mutations, async (method) => {
    const found = await replays(service, method, world, other);
    if (found !== null) shown += 1;
    faults.push(...(found ?? []));
  });
  return { seen: `${shown} of ${mutations.length} mutations, repeated by others`, faults };
};

/** What a caller could bring that was given to somebody else, or to nobody. Without authentication no token is looked at. */
export const forgedChecks = (service: Service): readonly Check[] => {
  const { signer } = service;
  const check = (name: string, run: () => Promise<Finding>): Check => ({ group: 'forged', name, run });
  return [
    ...(signer === null ? [] : [check('no RPC takes a forged token', () => tokens(service, signer))]),
    check('a page token is of use to nobody else, and nowhere else', () => pages(service)),
    check("a request id does not give one asker's reply to another", () => requestIds(service)),
  ];
};
