import { randomUUID } from 'node:crypto';
import { ExecutionStatus } from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ProjectStatus } from '../gen/jeex/persistence/v1/project_service_pb.js';
import type { Cast } from './opening.ts';
import { type DocumentType, STEPS, sample, sha256 } from './samples.ts';

/** A run that an agent holds. */
interface Run {
  readonly agent: string;
  readonly id: string;
  readonly leaseToken: string;
}

const SECONDS = 60;

/** Chapter 2: the four steps, each written by agents whose runs complete together with their documents. */
export const walkTheSteps = async (cast: Cast): Promise<void> => {
  const { story } = cast;
  story.chapter('2. Four steps, written by agents');
  await moveTo(cast, { status: ProjectStatus.ACTIVE });
  const conductor = await begin(cast, 'conductor');
  await idea(cast, conductor);
  await moveTo(cast, { currentStep: 2 });
  await write(cast, conductor, 'specification-writer', 'Specifications from the idea', ['specifications', 1]);
  await write(cast, conductor, 'specification-reviewer', 'What a caller may rely on', ['specifications', 2]);
  await moveTo(cast, { currentStep: 3 });
  await write(cast, conductor, 'architect', 'A shape for the specifications', ['architecture', 1]);
  await write(cast, conductor, 'architect', 'Fewer round trips', ['architecture', 2]);
  await moveTo(cast, { currentStep: 4 });
  await write(cast, conductor, 'planner', 'An order of work', ['plan', 1]);
  const reviewed: [DocumentType, number][] = [
    ['plan', 2],
    ['specifications', 3],
    ['architecture', 3],
  ];
  await write(cast, conductor, 'reviewer', 'One review across three documents', ...reviewed);
  await complete(cast, conductor, []);
  await moveTo(cast, { status: ProjectStatus.COMPLETED });
  await lookBack(cast);
};

/** The first step, call by call: an agent waits, starts, shows that it is alive, and completes. */
const idea = async (cast: Cast, conductor: Run): Promise<void> => {
  const { story, owner, projectId } = cast;
  const { execution } = await owner.executions.createExecution({
    projectId,
    agentType: 'idea-writer',
    parentExecutionId: conductor.id,
    input: { data: Buffer.from(JSON.stringify({ task: 'Write the idea down' })) },
  });
  const id = execution?.id ?? '';
  story.same('a run waits to be started: PENDING', execution?.status, ExecutionStatus.PENDING);
  const { leaseToken } = await owner.executions.startExecution({ projectId, id, leaseSeconds: SECONDS });
  const beat = await owner.executions.heartbeatExecution({ projectId, id, leaseToken, leaseSeconds: 2 * SECONDS });
  story.holds(
    'started, it is held by a lease, which a heartbeat extends',
    beat.execution?.status === ExecutionStatus.RUNNING && leaseToken !== '' && secondsLeft(beat.execution) > SECONDS,
  );
  await story.refused(
    'whoever does not hold the lease cannot complete the run: LEASE_LOST',
    'LEASE_LOST',
    owner.executions.completeExecution({ projectId, id, leaseToken: randomUUID(), versions: [entry('idea', 1, '')] }),
  );
  await complete(cast, { agent: 'idea-writer', id, leaseToken }, [entry('idea', 1, 'The first words')]);
  const { version } = await owner.documents.appendVersion({
    projectId,
    ...entry('idea', 2, 'The owner adds how to know that it works'),
    readabilityScore: 71.5,
  });
  story.same(
    'idea 2, an edit of the owner: the version says who, why, and how readable it is',
    [version?.version, version?.createdBy, version?.reason, version?.readabilityScore, version?.executionId],
    [2, await ownerOf(cast), 'The owner adds how to know that it works', 71.5, ''],
  );
};

/** One agent's run from its start to its completion with the versions it writes. */
const write = async (
  cast: Cast,
  parent: Run,
  agentType: string,
  reason: string,
  ...versions: readonly [DocumentType, number][]
): Promise<void> => {
  const run = await begin(cast, agentType, parent);
  await complete(
    cast,
    run,
    versions.map(([documentType, version]) => entry(documentType, version, reason)),
  );
};

const begin = async ({ owner, projectId }: Cast, agentType: string, parent?: Run): Promise<Run> => {
  const { execution, leaseToken } = await owner.executions.createExecution({
    projectId,
    agentType,
    parentExecutionId: parent?.id ?? '',
    input: { data: Buffer.from(JSON.stringify({ agent: agentType })) },
    start: true,
    leaseSeconds: SECONDS,
  });
  return { agent: agentType, id: execution?.id ?? '', leaseToken };
};

/** Completes a run together with its documents, and checks that each version is the next one of its document. */
const complete = async (cast: Cast, run: Run, versions: ReturnType<typeof entry>[]): Promise<void> => {
  const { story, owner, projectId } = cast;
  const answer = await owner.executions.completeExecution({
    projectId,
    id: run.id,
    leaseToken: run.leaseToken,
    output: { contentType: 'text/plain', data: Buffer.from(`wrote ${versions.length}`) },
    model: 'demo',
    inputTokens: 1200n,
    outputTokens: 800n,
    costMicros: 4200n,
    versions,
  });
  const written = answer.versions.map(({ documentType, version }) => `${documentType} ${version}`);
  if (versions.length === 0) return;
  story.same(
    `${run.agent}: ${written.join(', ')} and the end of run ${run.id}, in one transaction`,
    [answer.execution?.status, ...answer.versions.map((version) => [version.contentSha256, version.executionId])],
    [ExecutionStatus.COMPLETED, ...versions.map(({ content }) => [sha256(content), run.id])],
  );
};

/** The sample's version, to follow the one before it. */
const entry = (documentType: DocumentType, version: number, reason: string) => ({
  documentType,
  content: sample(documentType, version),
  reason,
  metadata: { sample: `${documentType}.${version}.md` },
  expectedVersion: version - 1,
});

const moveTo = async (
  { story, owner, projectId }: Cast,
  change: { status: ProjectStatus } | { currentStep: number },
): Promise<void> => {
  const { project: before } = await owner.projects.getProject({ id: projectId });
  const { project } = await owner.projects.updateProject({
    project: { id: projectId, ...change, etag: before?.etag ?? '' },
    updateMask: { paths: 'status' in change ? ['status'] : ['current_step'] },
  });
  const [what, wanted, found] =
    'status' in change
      ? [`is ${ProjectStatus[change.status]}`, change.status, project?.status]
      : [
          `is in step ${change.currentStep}, ${STEPS[change.currentStep - 1]}`,
          change.currentStep,
          project?.currentStep,
        ];
  story.same(`the project ${what}`, found, wanted);
};

const lookBack = async ({ story, owner, projectId, correlationId }: Cast): Promise<void> => {
  const { executions } = await owner.executions.listExecutions({ projectId, correlationId });
  story.same(
    'the eight runs of this correlation are COMPLETED',
    executions.map(({ status }) => status),
    Array(8).fill(ExecutionStatus.COMPLETED),
  );
  const { documents } = await owner.documents.listDocuments({ projectId });
  story.same(
    'the project holds its four documents at their last versions',
    documents.map(({ documentType, version }) => `${documentType} ${version}`),
    ['architecture 3', 'idea 2', 'plan 2', 'specifications 3'],
  );
};

const secondsLeft = (execution: { leaseExpireTime?: { seconds: bigint }; updateTime?: { seconds: bigint } }): number =>
  Number((execution.leaseExpireTime?.seconds ?? 0n) - (execution.updateTime?.seconds ?? 0n));

const ownerOf = async ({ owner, projectId }: Cast): Promise<string> =>
  (await owner.projects.getProject({ id: projectId })).project?.createdBy ?? '';
