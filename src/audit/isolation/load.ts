import { type DescMethod, getOption, toBinary } from '@bufbuild/protobuf';
import { Access, access } from '../../gen/jeex/persistence/v1/access_pb.js';
import { ProjectService } from '../../gen/jeex/persistence/v1/project_service_pb.js';
import { isMutation } from '../../rpc/access.ts';
import type { Check, Finding } from './check.ts';
import type { Door, Reply } from './door.ts';
import { makeRequest } from './requests.ts';
import { keyOf, type Service } from './service.ts';
import { each, fill, newProject, newUsers, type ProjectFacts } from './world.ts';

const ACTORS = 20;
const IN_FLIGHT = 32;
const WRITES = 0.2;
/** Many small answers mix more callers than a few large ones. */
const PAGE_SIZE = 5;
/** How often a call asks for one of the actor's own projects, and how often with another project's ids in it. */
const OWN = 0.5;
const BORROWED = 0.2;
/** Failures that say nothing about isolation; more of them than this share, and the load proved too little. */
const MOST_FAILURES = 0.01;
const FAILURE = /^(code \d+|OVERLOADED|CONTENTION|DATABASE_UNAVAILABLE|SHUTTING_DOWN|DEADLINE)$/;

export interface LoadOptions {
  readonly calls: number;
  readonly progress: (done: number) => void;
  readonly signal: AbortSignal;
}

/** An actor, and the projects it is a member of: one in each role. */
interface Member {
  readonly id: string;
  readonly projects: ReadonlySet<string>;
}

interface Town {
  readonly members: readonly Member[];
  readonly projects: readonly ProjectFacts[];
  /** Finds the id of any of the projects. */
  readonly ids: RegExp;
}

const pick = <T>(items: readonly T[]): T => items[Math.floor(Math.random() * items.length)] as T;

/** As many projects as actors: each actor owns one, edits the next, views another, and is a stranger to the rest. */
const build = async (door: Door): Promise<Town> => {
  const users = await newUsers(door, ACTORS);
  const at = (index: number): string => users[index % ACTORS] as string;
  const projects: ProjectFacts[] = [];
  const memberships = new Map(users.map((id) => [id, new Set<string>()]));
  await each([...users.keys()], async (index) => {
    const cast = { owner: at(index), editor: at(index + 1), viewer: at(index + 7) };
    const facts = await fill(door, await newProject(door, cast), cast.editor);
    for (const user of Object.values(cast)) memberships.get(user)?.add(facts.project);
    projects.push(facts);
  });
  return {
    members: users.map((id) => ({ id, projects: memberships.get(id) ?? new Set() })),
    projects,
    ids: new RegExp(projects.map(({ project }) => project).join('|'), 'g'),
  };
};

const MEMBERS: ReadonlySet<Access> = new Set([Access.READER, Access.MEMBER, Access.EDITOR]);

const isAsked = (method: DescMethod): boolean =>
  method.methodKind === 'unary' &&
  (MEMBERS.has(getOption(method, access)) || method === ProjectService.method.listProjects);

/** What the answers held. */
class Tally {
  calls = 0;
  answers = 0;
  foreign = 0;
  misplaced = 0;
  failures = 0;
  readonly faults = new Set<string>();

  /** Counts the rows of an answer by the project ids in it: every row has its project's, and every content and input too. */
  take(method: DescMethod, asked: ProjectFacts, member: Member, ids: RegExp, { outcome, bytes }: Reply): void {
    this.calls += 1;
    if (FAILURE.test(outcome)) this.failures += 1;
    if (outcome === 'INTERNAL') this.faults.add(`${keyOf(method)} ended with INTERNAL`);
    if (outcome !== 'OK') return;
    this.answers += 1;
    const anyOwn = method === ProjectService.method.listProjects;
    if (!anyOwn && !member.projects.has(asked.project)) this.faults.add(`${keyOf(method)} let a stranger in`);
    for (const [id] of bytes.toString('latin1').matchAll(ids)) {
      if (!member.projects.has(id)) this.foreign += 1;
      else if (!anyOwn && id !== asked.project) this.misplaced += 1;
    }
  }

  finding(): Finding {
    const { calls, answers, foreign, misplaced, failures } = this;
    if (foreign > 0) this.faults.add(`${foreign} rows of a project the actor is no member of`);
    if (misplaced > 0) this.faults.add(`${misplaced} rows of another project than was asked for`);
    if (failures > calls * MOST_FAILURES) this.faults.add(`${failures} calls failed, so that too little is shown`);
    const seen = `${calls} calls, ${answers} answered, ${calls - answers - failures} refused, ${failures} failed; foreign rows: ${foreign}`;
    return { seen, faults: [...this.faults] };
  }
}

/** Encoded requests, each made once: of a project, with the things of the same or of another one. */
const requestsOf = ({ correlationId }: Door) => {
  const made = new Map<string, Uint8Array>();
  return (method: DescMethod, asked: ProjectFacts, things: ProjectFacts): Uint8Array => {
    const key = `${keyOf(method)} ${asked.project} ${things.project}`;
    const known = made.get(key);
    if (known) return known;
    const facts = { ...things, project: asked.project, user: '', creator: '', email: '', correlationId };
    const { message } = makeRequest(method, facts);
    if ('pageSize' in message) Object.assign(message, { pageSize: PAGE_SIZE });
    const bytes = toBinary(method.input, message);
    made.set(key, bytes);
    return bytes;
  };
};

const run = async ({ door, methods }: Service, { calls, progress, signal }: LoadOptions): Promise<Finding> => {
  const town = await build(door);
  const asked = methods.filter(isAsked);
  const [reads, writes] = [asked.filter((method) => !isMutation(method)), asked.filter(isMutation)];
  const requestOf = requestsOf(door);
  const tally = new Tally();
  const step = Math.max(1, Math.floor(calls / 10));
  let sent = 0;
  const one = async (): Promise<void> => {
    const member = pick(town.members);
    const method = pick(Math.random() < WRITES ? writes : reads);
    const own = town.projects.filter(({ project }) => member.projects.has(project));
    const project = pick(Math.random() < OWN ? own : town.projects);
    const things = Math.random() < BORROWED ? pick(town.projects) : project;
    const reply = await door.send(method, requestOf(method, project, things), { actor: member.id });
    tally.take(method, project, member, town.ids, reply);
  };
  const worker = async (): Promise<void> => {
    while (sent < calls && !signal.aborted) {
      sent += 1;
      await one();
      if (tally.calls % step === 0) progress(tally.calls);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
  return tally.finding();
};

/** Many actors in many projects at once: what coalesces, pools and caches would mix up if anything did. */
export const loadChecks = (service: Service, options: LoadOptions): readonly Check[] =>
  options.calls === 0
    ? []
    : [
        {
          group: 'load',
          name: `under load no actor sees a row of a project it is no member of`,
          run: () => run(service, options),
        },
      ];
