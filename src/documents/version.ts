import type { JsonObject } from '@bufbuild/protobuf';
import { z } from 'zod';
import { timestamp } from '../rpc/convert.ts';

const VERSION_SHAPE = {
  id: z.string(),
  project_id: z.string(),
  document_type: z.string(),
  version: z.int(),
  content_sha256: z.instanceof(Buffer),
  size_bytes: z.bigint(),
  metadata: z.custom<JsonObject>(),
  reason: z.string(),
  restored_from_version: z.int().nullable(),
  readability_score: z.number().nullable(),
  grammar_score: z.number().nullable(),
  created_by: z.string().nullable(),
  caller: z.string(),
  correlation_id: z.string(),
  execution_id: z.string().nullable(),
  create_time: z.bigint(),
  project_revision: z.bigint(),
} as const;

/** A row of `document_versions`. */
export const VersionRow = z.object(VERSION_SHAPE);
export type VersionRow = z.infer<typeof VersionRow>;

/** A row of `document_versions` as the wire's DocumentVersion; BASIC without a content. */
export const toVersion = (row: VersionRow, content = '') => ({
  id: row.id,
  projectId: row.project_id,
  documentType: row.document_type,
  version: row.version,
  content,
  contentSha256: row.content_sha256.toString('hex'),
  sizeBytes: row.size_bytes,
  metadata: row.metadata,
  reason: row.reason,
  restoredFromVersion: row.restored_from_version ?? 0,
  readabilityScore: row.readability_score ?? undefined,
  grammarScore: row.grammar_score ?? undefined,
  createdBy: row.created_by ?? '',
  caller: row.caller,
  correlationId: row.correlation_id,
  executionId: row.execution_id ?? '',
  createTime: timestamp(row.create_time),
  projectRevision: row.project_revision,
});
