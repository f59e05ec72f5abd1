import type { DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { AgentExecutionService } from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { DocumentService, View } from '../gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from '../gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService } from '../gen/jeex/persistence/v1/project_service_pb.js';
import { Failed } from './door.ts';
import type { Place } from './history.ts';
import type { Asked, Seen } from './ledger.ts';
import { TYPES } from './ledger.ts';
import { patiently } from './patience.ts';
import type { Worker } from './worker.ts';

const PAGE = 1000;
const CALL_MS = 30_000;

interface List<M extends DescMethodUnary> {
  readonly asked: Asked;
  readonly method: M;
  readonly request: Record<string, unknown>;
  readonly see: (message: MessageShape<M['output']>) => readonly Seen[];
}

/** Reads a list whole, each page a call of the ledger. @throws Failed when the service stays away */
const readAll = async <M extends DescMethodUnary>(
  worker: Worker,
  { asked, method, request, see }: List<M>,
): Promise<void> => {
  const { ledger, retry, tally } = worker.shared;
  let pageToken = '';
  do {
    const page = { ...request, pageToken } as unknown as MessageInitShape<M['input']>;
    pageToken = await patiently(retry, worker.random, async () => {
      const call = ledger.begin(ledger.ask(asked));
      const { message } = await worker.door.call(method, page, { timeoutMs: CALL_MS });
      ledger.end(call, 'answered');
      tally.reads += 1;
      worker.checkForeign(asked, message);
      ledger.see(call, see(message as MessageShape<M['output']>));
      return (message as { nextPageToken?: string }).nextPageToken ?? '';
    });
  } while (pageToken !== '');
};

const isMissing = (error: unknown): boolean => error instanceof Failed && error.reason === 'DOCUMENT_NOT_FOUND';

/** A document that nobody wrote has no versions to read. */
const readVersions = async (worker: Worker, place: Place, type: number): Promise<void> => {
  const reading = readAll(worker, {
    asked: { kind: 'auditVersions', project: place.index, actor: 'system', type },
    method: DocumentService.method.listVersions,
    request: { projectId: place.id, documentType: TYPES[type], pageSize: PAGE, view: View.FULL },
    see: ({ versions }) => versions.map((version) => worker.shared.look.version(place, 'version', version, true)),
  });
  await reading.catch((error: unknown) => (isMissing(error) ? undefined : Promise.reject(error)));
};

/**
 * The last look at a project: every row that is left, every content whole. Its pages are reads of the ledger like others, so that
 * what is checked of those is checked of these.
 * @throws Failed when the service stays away
 */
export const auditRows = async (worker: Worker, place: Place): Promise<void> => {
  const { look } = worker.shared;
  const { index: project, id: projectId } = place;
  for (const type of TYPES.keys()) await readVersions(worker, place, type);
  await readAll(worker, {
    asked: { kind: 'auditRuns', project, actor: 'system' },
    method: AgentExecutionService.method.listExecutions,
    request: { projectId, pageSize: PAGE },
    see: ({ executions }) => executions.map((run) => look.run(place, run, {})),
  });
  await readAll(worker, {
    asked: { kind: 'auditExports', project, actor: 'system' },
    method: ExportService.method.listExports,
    request: { projectId, pageSize: PAGE },
    see: ({ exports }) => exports.flatMap((exported) => look.export(exported)),
  });
  await readAll(worker, {
    asked: { kind: 'getUsage', project, actor: 'system' },
    method: ProjectService.method.getProjectUsage,
    request: { projectId },
    see: ({ usage }) => (usage ? [look.usage(usage)] : []),
  });
};
