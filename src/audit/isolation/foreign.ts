import type { DescMethod } from '@bufbuild/protobuf';
import { ProjectService } from '../../gen/jeex/persistence/v1/project_service_pb.js';
import { isMutation } from '../../rpc/access.ts';
import { compileSubject } from '../../rpc/subject.ts';
import type { Check, Finding } from './check.ts';
import type { Identity, Reply } from './door.ts';
import { expectedEntrance, isByRole } from './expected.ts';
import { absentFacts, type Fact, type Facts, makeRequest } from './requests.ts';
import { isForNobody, keyOf, type Service } from './service.ts';
import { each, holdsRowOf, type Pair } from './world.ts';

/** The facts that are of one project. Users belong to none: an owner may make any user a member, if it knows the id. */
const OF_PROJECT: ReadonlySet<Fact> = new Set<Fact>([
  'execution',
  'running',
  'runningLease',
  'export',
  'processing',
  'processingLease',
  'documentType',
]);

/** What a refusal says with every id that was asked for taken out, so that only what the service added is left. */
const normalised = ({ outcome, said }: Reply, facts: Facts): string =>
  Object.values(facts).reduce((text, value) => text.replaceAll(value, '…'), `${outcome} ${said}`);

const isNotFound = (outcome: string): boolean => outcome.endsWith('_NOT_FOUND');

/** Whether the audit finds the project of a call where the pipeline does, and there is one where a role is asked for. */
const isFound = (method: DescMethod, facts: Facts): boolean => {
  const { message, used } = makeRequest(method, facts);
  const about = compileSubject(method)(message).projects.includes(facts.project);
  return used.has('project') === about && (about || !isByRole(method));
};

/** Every RPC there is can be sent, and one that is about a project names it where it is looked for. */
const covered = async ({ methods, pair }: Service): Promise<Finding> => {
  const { facts } = (await pair()).a;
  const faults = methods.flatMap((method) => {
    try {
      return isFound(method, facts) ? [] : [`${keyOf(method)} is not covered: it names its project elsewhere`];
    } catch (error) {
      return [`${keyOf(method)} is not covered: ${(error as Error).message}`];
    }
  });
  return { seen: `${methods.length} RPCs`, faults };
};

interface Comparison {
  readonly method: DescMethod;
  readonly identity: Identity;
  readonly foreign: Facts;
  readonly absent: Facts;
}

const compare = async ({ door }: Service, { b }: Pair, asked: Comparison) => {
  const { method, identity, foreign, absent } = asked;
  const there = await door.call(method, makeRequest(method, foreign).message, identity);
  const nowhere = await door.call(method, makeRequest(method, absent).message, identity);
  const faults: string[] = [];
  if (holdsRowOf(b, there.bytes)) faults.push(`${keyOf(method)} answers rows of the foreign project`);
  if (
    there.outcome !== nowhere.outcome ||
    (there.outcome !== 'OK' && normalised(there, foreign) !== normalised(nowhere, absent))
  ) {
    faults.push(
      `${keyOf(method)} tells what is foreign (${there.outcome}) from what does not exist (${nowhere.outcome})`,
    );
  }
  return { there, faults };
};

const uses = (method: DescMethod, facts: Facts, wanted: (fact: Fact) => boolean): boolean =>
  [...makeRequest(method, facts).used].some(wanted);

/** A stranger asks for a project, or a user of it, with all the right ids. */
const strangers = async (service: Service): Promise<Finding> => {
  const { methods, scopes } = service;
  const pair = await service.pair();
  const { a, b } = pair;
  const faults: string[] = [];
  const asked = methods.filter((method) => uses(method, b.facts, (fact) => fact === 'project' || fact === 'user'));
  await each(asked, async (method) => {
    const must = expectedEntrance(method, { scopes, standing: 'stranger' });
    const identity = { actor: a.owner };
    const compared = await compare(service, pair, { method, identity, foreign: b.facts, absent: absentFacts() });
    faults.push(...compared.faults);
    if (compared.there.outcome !== must) faults.push(`${keyOf(method)} answers ${compared.there.outcome}, not ${must}`);
  });
  return { seen: `${asked.length} RPCs, as the owner of another project`, faults };
};

/** A member of one project, or the system, names its own project and the foreign one's things. */
const borrowers = async (service: Service): Promise<Finding> => {
  const pair = await service.pair();
  const { a, b } = pair;
  const own = { project: a.facts.project, user: a.facts.user, creator: a.owner };
  const borrowed = { ...b.facts, ...own };
  const faults: string[] = [];
  const asked = service.methods.filter(
    (method) =>
      uses(method, borrowed, (fact) => fact === 'project') && uses(method, borrowed, (fact) => OF_PROJECT.has(fact)),
  );
  await each(asked, async (method) => {
    const identity = isForNobody(method) ? {} : { actor: a.owner };
    const absent = { ...absentFacts(), ...own };
    const compared = await compare(service, pair, { method, identity, foreign: borrowed, absent });
    faults.push(...compared.faults);
    const { outcome } = compared.there;
    // A read may find nothing, and a write may make its own under a name that the foreign project has too.
    if (outcome !== 'OK' && !isNotFound(outcome)) faults.push(`${keyOf(method)} answers ${outcome}`);
  });
  return { seen: `${asked.length} RPCs, as an owner`, faults };
};

/** What an actor reads of its own, where a condition left out would show the rest. */
const unasked = async (service: Service): Promise<Finding> => {
  const { a, b } = await service.pair();
  const faults: string[] = [];
  const asked = service.methods.filter((method) => !isMutation(method) && !isForNobody(method));
  await each(asked, async (method) => {
    const reply = await service.door.call(method, makeRequest(method, a.facts).message, { actor: a.owner });
    if (reply.outcome !== 'OK') faults.push(`${keyOf(method)} refuses the owner: ${reply.outcome}`);
    if (holdsRowOf(b, reply.bytes)) faults.push(`${keyOf(method)} answers rows of the foreign project`);
  });
  return { seen: `${asked.length} reads of one's own, under the correlation id both projects share`, faults };
};

const untouched = async ({ door, pair }: Service, before: () => bigint | undefined): Promise<Finding> => {
  const { b } = await pair();
  const { project } = await door.ask(ProjectService.method.getProject, { id: b.facts.project });
  const seen = `revision ${project?.revision}`;
  return { seen, faults: project?.revision === before() ? [] : [`it was at revision ${before()}`] };
};

/** Every RPC of the contract, with the ids of a project that is none of the actor's. */
export const foreignChecks = (service: Service): readonly Check[] => {
  let revision: bigint | undefined;
  const check = (name: string, run: () => Promise<Finding>): Check => ({ group: 'foreign', name, run });
  return [
    check('every RPC is covered by this audit', async () => {
      const { facts } = (await service.pair()).b;
      revision = (await service.door.ask(ProjectService.method.getProject, { id: facts.project })).project?.revision;
      return covered(service);
    }),
    check("somebody else's project or user cannot be told from one that does not exist", () => strangers(service)),
    check("somebody else's things under one's own project cannot be told from none", () => borrowers(service)),
    check('no list or search shows rows of another project', () => unasked(service)),
    check('the foreign project has not changed by all this', () => untouched(service, () => revision)),
  ];
};
