import { type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { callParams } from '../db/statement.ts';
import {
  BatchAppendVersionsRequestSchema,
  DiffLineKind,
  type DocumentService,
  DocumentVersionSchema,
  type GetVersionRequest,
  View,
} from '../gen/jeex/persistence/v1/document_service_pb.js';
import { invalidField, Refusal, refusalOf } from '../refusal.ts';
import type { Call } from '../rpc/call.ts';
import type { Context } from '../rpc/context.ts';
import { oneOr } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { cutPage, encodedSize, pageSize } from '../rpc/page.ts';
import { createDiffPool } from './diff-pool.ts';
import { answerFits, headlineHtml, searchQuery } from './documents.ts';
import { entryParams } from './entries.ts';
import * as statements from './sql.ts';
import { toVersion, type VersionRow } from './version.ts';

interface Listed extends VersionRow {
  readonly content?: string | null;
  /** Whether the row was read whole; false for the row a page ends before. */
  readonly fits?: boolean;
}

const TAG_BYTES = 6;

/** The encoded size of a version; its content, which can be 3 MiB, is measured already. */
const versionSize = (row: Listed): number => {
  if (row.fits === false) return Number.POSITIVE_INFINITY;
  const content = row.content == null ? 0 : Number(row.size_bytes) + TAG_BYTES;
  return encodedSize(DocumentVersionSchema, toVersion(row)) + content;
};

const versionOf = (row: Listed): MessageInitShape<typeof DocumentVersionSchema> => toVersion(row, row.content ?? '');

const documentNotFound = (): Refusal => refusalOf('DOCUMENT_NOT_FOUND');
const versionNotFound = (field: string): Refusal => refusalOf('VERSION_NOT_FOUND', { field });
const nothingWritten = (): Refusal => new Refusal('INTERNAL', 'no version came back', { outcome: 'unknown' });

/** @throws INVALID_FIELD for a revision the project has not reached */
const checkRevision = (asked: bigint, reached: bigint): void => {
  if (asked > reached) throw invalidField('at_revision', `the project has reached revision ${reached}`);
};

export const documentHandlers = ({ db, pager }: Context): ServiceHandlers<typeof DocumentService> => {
  const diffs = createDiffPool();

  const readVersion = async (request: GetVersionRequest, call: Call) => {
    const { projectId: project, documentType: document_type, version, atRevision: at_revision } = request;
    const params = { project, actor: call.actor, document_type, version, full: request.view !== View.BASIC };
    if (at_revision === 0n) return oneOr(await db.run(statements.getVersion, params, call), documentNotFound);
    const row = oneOr(await db.run(statements.getVersionAt, { ...params, at_revision }, call), documentNotFound);
    checkRevision(at_revision, row.revision);
    if (!row.known) throw documentNotFound();
    return row;
  };

  return {
    appendVersion: async (request, call) => {
      const params = { project: request.projectId, entry_field: null, ...entryParams([request]), ...callParams(call) };
      const rows = await db.run(statements.appendVersions, params, call);
      return { version: toVersion(oneOr(rows, nothingWritten)) };
    },

    batchAppendVersions: async (request, call) => {
      const requestBytes = toBinary(BatchAppendVersionsRequestSchema, request).byteLength;
      const contentBytes = request.entries.map(({ content }) => Buffer.byteLength(content));
      if (!answerFits(requestBytes, contentBytes)) {
        const description = 'metadata and reasons of all entries must fit one message';
        throw refusalOf('CONTENT_TOO_LARGE', { field: 'entries', description });
      }
      const params = {
        project: request.projectId,
        entry_field: 'entries',
        ...entryParams(request.entries),
        ...callParams(call),
      };
      const rows = await db.run(statements.appendVersions, params, call);
      return { versions: rows.map((row) => toVersion(row)) };
    },

    getVersion: async (request, call) => {
      const row = await readVersion(request, call);
      if (row.id === null) throw versionNotFound('version');
      return { version: versionOf(row) };
    },

    batchGetVersions: async (request, call) => {
      const params = {
        project: request.projectId,
        actor: call.actor,
        document_types: request.names.map(({ documentType }) => documentType),
        versions: request.names.map(({ version }) => version),
        full: request.view === View.FULL,
      };
      const rows: Listed[] = await db.run(statements.batchGetVersions, params, call);
      const fitting = cutPage(rows, rows.length, versionSize, () => []).rows;
      return { versions: fitting.map(versionOf), truncated: fitting.length < rows.length };
    },

    listDocuments: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const after = pager.read(call, request, request.pageToken);
      const params = {
        project: request.projectId,
        actor: call.actor,
        after: after === null ? '' : String(after[0]),
        at_revision: request.atRevision,
        full: request.view === View.FULL,
        most: limit + 1,
      };
      const found = await db.run(statements.listDocuments, params, call);
      if (found[0] !== undefined) checkRevision(request.atRevision, found[0].revision);
      const rows = found.filter((row) => row.id !== null);
      const page = cutPage<Listed>(rows, limit, versionSize, (row) => [row.document_type]);
      return { documents: page.rows.map(versionOf), nextPageToken: pager.write(call, request, page.next) };
    },

    listVersions: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const before = pager.read(call, request, request.pageToken);
      const params = {
        project: request.projectId,
        actor: call.actor,
        document_type: request.documentType,
        before: before === null ? null : Number(before[0]),
        full: request.view === View.FULL,
        most: limit + 1,
      };
      const found = await db.run(statements.listVersions, params, call);
      if (found.length === 0) throw documentNotFound();
      const rows = found.filter((row) => row.id !== null);
      const page = cutPage<Listed>(rows, limit, versionSize, (row) => [row.version]);
      return { versions: page.rows.map(versionOf), nextPageToken: pager.write(call, request, page.next) };
    },

    restoreVersion: async (request, call) => {
      const params = {
        project: request.projectId,
        document_type: request.documentType,
        version: request.version,
        reason: request.reason,
        expected: request.expectedVersion ?? null,
        ...callParams(call),
      };
      const rows = await db.run(statements.restoreVersion, params, call);
      return { version: toVersion(oneOr(rows, nothingWritten)) };
    },

    diffVersions: async (request, call) => {
      const params = {
        project: request.projectId,
        actor: call.actor,
        document_type: request.documentType,
        from: request.fromVersion,
        to: request.toVersion,
      };
      const both = oneOr(await db.run(statements.diffVersions, params, call), documentNotFound);
      if (!both.from_known) throw versionNotFound('from_version');
      if (!both.to_known) throw versionNotFound('to_version');
      if (both.from_content === null || both.to_content === null) return { hunks: [] };
      const job = { from: both.from_content, to: both.to_content, context: request.contextLines ?? 3 };
      const { hunks, truncated } = await diffs.run(job, call.signal);
      return {
        hunks: hunks.map(({ lines, ...counts }) => ({
          ...counts,
          lines: lines.map(({ kind, text }) => ({ kind: DiffLineKind[kind], text })),
        })),
        truncated,
      };
    },

    searchDocuments: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const after = pager.read(call, request, request.pageToken);
      const params = {
        project: request.projectId,
        actor: call.actor,
        query: searchQuery(request.query),
        after_rank: after === null ? null : Number(after[0]),
        after_type: after === null ? '' : String(after[1]),
        most: limit + 1,
      };
      const rows = await db.run(statements.searchDocuments, params, call);
      const page = cutPage(
        rows,
        limit,
        // Without a headline: the row a page ends before. With one: its escapes may make six characters of each.
        (row) =>
          row.headline === null ? Number.POSITIVE_INFINITY : versionSize(row) + 6 * row.headline.length + TAG_BYTES,
        (row) => [row.rank, row.document_type],
      );
      return {
        matches: page.rows.map((row) => ({
          version: toVersion(row),
          headline: headlineHtml(row.headline ?? ''),
          rank: row.rank,
        })),
        nextPageToken: pager.write(call, request, page.next),
      };
    },
  };
};
