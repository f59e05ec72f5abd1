import { create, type DescMethod, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { AgentExecutionService } from '../../../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { DocumentService } from '../../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../../../src/gen/jeex/persistence/v1/project_service_pb.js';
import { LARGE, LONG, SMALL, textOf, WRITTEN } from './world.ts';

/** A kind of call, with a request for each project. */
export interface Work {
  readonly name: string;
  readonly path: string;
  readonly bodies: readonly Uint8Array[];
  /** Of writes: what each call replaces by something new. */
  readonly stamp?: string;
  /** Whether each call creates an execution and completes it. */
  readonly completes?: boolean;
}

/** Stands in a request where each call has something of its own. */
const STAMP = 'STAMPSTAMPSTAMP!';

const workOf = <M extends DescMethod>(
  name: string,
  method: M,
  projects: readonly string[],
  request: (project: string) => MessageInitShape<M['input']>,
): Work => ({
  name,
  path: `/${method.parent.typeName}/${method.name}`,
  bodies: projects.map((project) => toBinary(method.input, create(method.input, request(project)))),
});

const written = (work: Work): Work => ({ ...work, stamp: STAMP });

const { getVersion, listVersions, appendVersion } = DocumentService.method;
const { createExecution, batchCreateExecutions } = AgentExecutionService.method;

export const getSmall = (projects: readonly string[]): Work =>
  workOf('GetVersion 1.2 KB', getVersion, projects, (projectId) => ({ projectId, documentType: SMALL, version: 1 }));

export const getLarge = (projects: readonly string[]): Work =>
  workOf('GetVersion 64 KB', getVersion, projects, (projectId) => ({ projectId, documentType: LARGE, version: 1 }));

export const getProject = (projects: readonly string[]): Work =>
  workOf('GetProject', ProjectService.method.getProject, projects, (id) => ({ id }));

export const listFifty = (projects: readonly string[]): Work =>
  workOf('ListVersions(50)', listVersions, projects, (projectId) => ({ projectId, documentType: LONG, pageSize: 50 }));

export const append = (projects: readonly string[]): Work =>
  written(
    workOf('AppendVersion 1.2 KB', appendVersion, projects, (projectId) => ({
      projectId,
      documentType: WRITTEN,
      content: `${STAMP}${textOf(1_200 - STAMP.length, 0)}`,
    })),
  );

const execution = (agentType: string) => ({ agentType, correlationId: '018f0000-0000-7000-8000-000000000001' });

export const createOne = (projects: readonly string[]): Work =>
  written(workOf('CreateExecution', createExecution, projects, (projectId) => ({ projectId, ...execution(STAMP) })));

export const createAndComplete = (projects: readonly string[]): Work => ({
  ...written(
    workOf('CreateExecution + CompleteExecution', createExecution, projects, (projectId) => ({
      projectId,
      ...execution(STAMP),
      start: true,
    })),
  ),
  completes: true,
});

/** How many a batch creates. */
export const BATCH = 100;

export const createBatch = (projects: readonly string[]): Work =>
  written(
    workOf(`BatchCreateExecutions(${BATCH})`, batchCreateExecutions, projects, (projectId) => ({
      projectId,
      executions: Array.from({ length: BATCH }, (_, i) => ({ ...execution(i === 0 ? STAMP : 'writer'), status: 1 })),
    })),
  );
