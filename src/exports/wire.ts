import type { MessageInitShape } from '@bufbuild/protobuf';
import { type ExportSchema, ExportStatus } from '../gen/jeex/persistence/v1/export_service_pb.js';
import { enumNames, etag, optionalTimestamp, timestamp } from '../rpc/convert.ts';
import type { ExportRow } from './sql.ts';

const exportStatus = enumNames(ExportStatus);

/** A row of `exports` as the wire's Export. What the clock makes of its status changes its etag too. */
export const toExport = (row: ExportRow & { readonly seen_status?: string }): MessageInitShape<typeof ExportSchema> => {
  const status = row.seen_status ?? row.status;
  return {
    id: row.id,
    projectId: row.project_id,
    status: exportStatus.value(status),
    manifest: {
      entries: row.manifest.map((entry) => ({
        documentType: entry.document_type,
        version: entry.version,
        contentSha256: entry.content_sha256,
        sizeBytes: BigInt(entry.size_bytes),
      })),
    },
    filePath: row.file_path,
    fileSizeBytes: row.file_size_bytes,
    fileSha256: row.file_sha256,
    errorMessage: row.error_message,
    downloadCount: row.download_count,
    createdBy: row.created_by ?? '',
    caller: row.caller,
    correlationId: row.correlation_id,
    createTime: timestamp(row.create_time),
    completeTime: optionalTimestamp(row.complete_time),
    expireTime: timestamp(row.expire_time),
    projectRevision: row.project_revision,
    etag: status === row.status ? etag(row.row_version) : `${etag(row.row_version)}-${status.toLowerCase()}`,
  };
};
