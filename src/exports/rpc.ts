import { callParams } from '../db/statement.ts';
import { toVersion } from '../documents/version.ts';
import { leaseSeconds } from '../executions/executions.ts';
import { ExportSchema, type ExportService } from '../gen/jeex/persistence/v1/export_service_pb.js';
import { Refusal, refusalOf } from '../refusal.ts';
import type { Call } from '../rpc/call.ts';
import type { Context } from '../rpc/context.ts';
import { oneOr } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { cutPage, encodedSize, pageSize } from '../rpc/page.ts';
import { isContentOf, ttlMicros } from './exports.ts';
import * as statements from './sql.ts';
import { toExport } from './wire.ts';

const notFound = (): Refusal => refusalOf('EXPORT_NOT_FOUND');
const nothingWritten = (): Refusal => new Refusal('INTERNAL', 'no export came back', { outcome: 'unknown' });

const held = (row: statements.HeldRow) => ({ export: toExport(row), leaseToken: row.lease_token ?? '' });

const refuseExpired = (seen: string): void => {
  if (seen === 'EXPIRED') throw refusalOf('EXPORT_EXPIRED');
};

/**
 * The versions of an export's manifest, each read by a statement of its own when the client has taken the one before: no
 * connection is held meanwhile, and whether the actor still may read is asked again each time. Versions never change, so
 * neither does what is streamed.
 */
async function* streamContent({ db }: Context, request: { projectId: string; id: string }, call: Call) {
  const of = { project: request.projectId, actor: call.actor, id: request.id };
  const found = oneOr(await db.run(statements.getExport, of, call), notFound);
  refuseExpired(found.seen_status);
  for (const { document_type, version, content_sha256 } of found.manifest) {
    const row = oneOr(await db.run(statements.getEntry, { ...of, document_type, version }, call), notFound);
    refuseExpired(row.seen_status);
    if (!isContentOf(content_sha256, row.content)) {
      throw new Refusal('INTERNAL', `version ${version} of ${document_type} is not what its hash says`);
    }
    yield { version: toVersion(row, row.content) };
  }
}

export const exportHandlers = (context: Context): ServiceHandlers<typeof ExportService> => {
  const { db, pager } = context;
  return {
    createExport: async (request, call) => {
      const params = {
        project: request.projectId,
        document_types: request.documentTypes,
        ttl_micros: ttlMicros(request.ttl),
        ...callParams(call),
      };
      return { export: toExport(oneOr(await db.run(statements.createExport, params, call), nothingWritten)) };
    },

    streamExportContent: (request, call) => streamContent(context, request, call),

    claimExport: async (request, call) => {
      const params = { lease_seconds: leaseSeconds(request.leaseSeconds), ...callParams(call) };
      const [row] = await db.run(statements.claimExport, params, call);
      return row ? held(row) : {};
    },

    startExport: async (request, call) => {
      const params = {
        project: request.projectId,
        id: request.id,
        lease_seconds: leaseSeconds(request.leaseSeconds),
        ...callParams(call),
      };
      return held(oneOr(await db.run(statements.startExport, params, call), nothingWritten));
    },

    completeExport: async (request, call) => {
      const params = {
        project: request.projectId,
        id: request.id,
        status: 'COMPLETED',
        token: request.leaseToken,
        file_path: request.filePath,
        file_size_bytes: request.fileSizeBytes,
        file_sha256: request.fileSha256,
        error_message: null,
        ...callParams(call),
      };
      return { export: toExport(oneOr(await db.run(statements.endExport, params, call), nothingWritten)) };
    },

    failExport: async (request, call) => {
      const params = {
        project: request.projectId,
        id: request.id,
        status: 'FAILED',
        token: request.leaseToken,
        file_path: null,
        file_size_bytes: null,
        file_sha256: null,
        error_message: request.errorMessage,
        ...callParams(call),
      };
      return { export: toExport(oneOr(await db.run(statements.endExport, params, call), nothingWritten)) };
    },

    getExport: async (request, call) => {
      const params = { project: request.projectId, actor: call.actor, id: request.id };
      return { export: toExport(oneOr(await db.run(statements.getExport, params, call), notFound)) };
    },

    listExports: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const before = pager.read(call, request, request.pageToken);
      const params = {
        project: request.projectId,
        actor: call.actor,
        before: before === null ? null : String(before[0]),
        most: limit + 1,
      };
      const rows = await db.run(statements.listExports, params, call);
      const page = cutPage(
        rows,
        limit,
        (row) => (row.fits ? encodedSize(ExportSchema, toExport(row)) : Number.POSITIVE_INFINITY),
        (row) => [row.id],
      );
      return { exports: page.rows.map(toExport), nextPageToken: pager.write(call, request, page.next) };
    },

    recordDownload: async (request, call) => {
      const params = { project: request.projectId, id: request.id, ...callParams(call) };
      return { export: toExport(oneOr(await db.run(statements.recordDownload, params, call), nothingWritten)) };
    },
  };
};
