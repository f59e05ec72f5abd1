import { createHash } from 'node:crypto';
import type { DocumentVersion } from '../gen/jeex/persistence/v1/document_service_pb.js';
import { type Export, ExportService } from '../gen/jeex/persistence/v1/export_service_pb.js';
import { Failed } from './door.ts';
import type { Asked } from './ledger.ts';
import { codeOf } from './marks.ts';
import { readerOf, type Step } from './steps-documents.ts';
import type { Worker } from './worker.ts';
import { type Known, LEASE_SECONDS, type Surroundings } from './world.ts';

const { method } = ExportService;
const STREAM_MS = 60_000;

const see = ({ shared }: Worker, exported: Export | undefined) => (exported ? shared.look.export(exported) : []);

const createExport: Step = async (worker, { place, waiting, exports }) => {
  const done = await worker.write({
    asked: { kind: 'createExport', project: place.index, actor: readerOf(worker) },
    method: method.createExport,
    request: () => ({ projectId: place.id }),
    see: ({ export: made }) => see(worker, made),
  });
  if (!done) return;
  const known = { code: codeOf(done.operation, 0), id: done.message.export?.id ?? '' };
  waiting.put(known, worker.random);
  exports.put(known, worker.random);
};

const startExport: Step = async (worker, around) => {
  const { place, waiting, worked } = around;
  const known = waiting.take(worker.random);
  if (known === undefined) return createExport(worker, around);
  const done = await worker.write({
    asked: { kind: 'startExport', project: place.index, actor: 'system', target: known.code },
    method: method.startExport,
    request: () => ({ projectId: place.id, id: known.id, leaseSeconds: LEASE_SECONDS }),
    see: ({ export: started }) => see(worker, started),
  });
  if (done) worked.put({ ...known, token: done.message.leaseToken }, worker.random);
};

const completeExport: Step = async (worker, around) => {
  const { place, worked, completed } = around;
  const held = worked.take(worker.random);
  if (held === undefined) return startExport(worker, around);
  const done = await worker.write({
    asked: { kind: 'completeExport', project: place.index, actor: 'system', target: held.code },
    method: method.completeExport,
    request: () => ({
      projectId: place.id,
      id: held.id,
      leaseToken: held.token,
      filePath: `certify/${held.id}`,
      fileSizeBytes: 36n,
      fileSha256: createHash('sha256').update(held.id).digest('hex'),
    }),
    see: ({ export: made }) => see(worker, made),
  });
  if (done) completed.put(held, worker.random);
};

const recordDownload: Step = async (worker, around) => {
  const { place, completed } = around;
  const known = completed.look(worker.random);
  if (known === undefined) return completeExport(worker, around);
  return worker.write({
    asked: { kind: 'recordDownload', project: place.index, actor: readerOf(worker), target: known.code },
    method: method.recordDownload,
    request: () => ({ projectId: place.id, id: known.id }),
    see: ({ export: made }) => see(worker, made),
  });
};

const readExport = async (worker: Worker, { place }: Surroundings, known: Known): Promise<Export | undefined> => {
  const found = await worker.read({
    asked: { kind: 'getExport', project: place.index, actor: readerOf(worker), target: known.code },
    method: method.getExport,
    request: { projectId: place.id, id: known.id },
    see: ({ export: shown }) => see(worker, shown),
  });
  return found?.export;
};

const getExport: Step = async (worker, around) => {
  const known = around.exports.look(worker.random);
  if (known) await readExport(worker, around, known);
};

/** Streams an export's content whole. */
const streamExport: Step = async (worker, around) => {
  const { place, exports } = around;
  const { ledger, look, tally } = worker.shared;
  const known = exports.look(worker.random);
  const exported = known && (await readExport(worker, around, known));
  if (!exported) return;
  const asked: Asked = { kind: 'streamExport', project: place.index, actor: readerOf(worker), target: known.code };
  const operation = ledger.ask(asked);
  const call = ledger.begin(operation);
  const versions: DocumentVersion[] = [];
  const envelope = { actor: worker.actor(asked), timeoutMs: STREAM_MS };
  try {
    const request = { projectId: place.id, id: known.id };
    for await (const { version } of worker.door.stream(method.streamExportContent, request, envelope)) {
      if (version) versions.push(version);
    }
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    ledger.end(call, 'refused');
    return tally.fail(error.reason);
  }
  ledger.end(call, 'answered');
  tally.reads += 1;
  worker.checkForeign(asked, versions);
  ledger.see(call, look.streamed(place, exported, versions));
};

/** How often which step is taken, beside those of documents, runs and others. */
export const EXPORT_STEPS: readonly (readonly [number, Step])[] = [
  [2, createExport],
  [1, startExport],
  [1, completeExport],
  [2, recordDownload],
  [2, getExport],
  [1, streamExport],
];
