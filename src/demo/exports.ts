import { type Export, ExportStatus } from '../gen/jeex/persistence/v1/export_service_pb.js';
import type { Cast } from './opening.ts';
import { sha256 } from './samples.ts';

/**
 * Chapter 5: a snapshot is fixed, streamed and checked; a worker makes a file of it; somebody downloads that.
 * @param alone whether nobody else uses the service, so that the next export to claim can only be the story's own
 */
export const exportAll = async (cast: Cast, alone: boolean): Promise<void> => {
  const { story, owner, projectId } = cast;
  story.chapter('5. An export');
  const { export: made } = await owner.exports.createExport({ projectId });
  if (!made) throw new Error('CreateExport answered no export');
  story.say(`export         ${made.id}, as of revision ${made.projectRevision}`);
  await owner.documents.restoreVersion({
    projectId,
    documentType: 'plan',
    version: 2,
    reason: 'A plan for one release',
  });
  const file = await stream(cast, made);
  await story.refused(
    'it is not a file yet: EXPORT_NOT_READY',
    'EXPORT_NOT_READY',
    owner.exports.recordDownload({ projectId, id: made.id }),
  );
  await work(cast, made, file, alone);
  await owner.exports.recordDownload({ projectId, id: made.id });
  await owner.exports.recordDownload({ projectId, id: made.id });
  const { export: last } = await owner.exports.getExport({ projectId, id: made.id });
  story.same('two downloads are counted', last?.downloadCount, 2n);
};

/** Streams the contents, checks each against the manifest, and makes of them the file a worker would. */
const stream = async ({ story, owner, projectId }: Cast, made: Export): Promise<string> => {
  const contents: string[] = [];
  const streamed: string[] = [];
  for await (const { version } of owner.exports.streamExportContent({ projectId, id: made.id })) {
    const content = version?.content ?? '';
    contents.push(content);
    streamed.push(`${version?.documentType} ${version?.version} ${sha256(content)} ${Buffer.byteLength(content)}`);
  }
  const promised = (made.manifest?.entries ?? []).map(
    (entry) => `${entry.documentType} ${entry.version} ${entry.contentSha256} ${entry.sizeBytes}`,
  );
  for (const { documentType, version, contentSha256 } of made.manifest?.entries ?? []) {
    story.say(`${documentType.padEnd(14)} ${version}  sha256 ${contentSha256}`);
  }
  story.same('the streamed documents have the hashes and sizes of the manifest', streamed, promised);
  story.holds(
    'the snapshot shows plan 3, although plan 4 was written before the stream',
    streamed.some((line) => line.startsWith('plan 3 ')),
  );
  return contents.join('\n');
};

/** A worker takes the export under a lease and reports the file. */
const work = async ({ story, system, projectId }: Cast, made: Export, file: string, alone: boolean): Promise<void> => {
  const taken = alone
    ? await system.exports.claimExport({ leaseSeconds: 60 })
    : await system.exports.startExport({ projectId, id: made.id, leaseSeconds: 60 });
  story.same(
    `a worker ${alone ? 'claims' : 'starts'} the export: PROCESSING`,
    [taken.export?.id, taken.export?.status],
    [made.id, ExportStatus.PROCESSING],
  );
  const { export: done } = await system.exports.completeExport({
    projectId,
    id: made.id,
    leaseToken: taken.leaseToken,
    filePath: `exports/${made.id}.md`,
    fileSizeBytes: BigInt(Buffer.byteLength(file)),
    fileSha256: sha256(file),
  });
  story.same(
    'and completes it with its file and the hash of it: COMPLETED',
    [done?.status, done?.fileSha256],
    [ExportStatus.COMPLETED, sha256(file)],
  );
};
