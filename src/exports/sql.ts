import { z } from 'zod';
import { read, sql, write } from '../db/statement.ts';
import { VersionRow } from '../documents/version.ts';

/** Bytes a list reads from the database before its page ends; more would not fit the answer. */
const PAGE_BYTES = sql.literalValue(String(3 * 1024 * 1024));

const manifest = z.array(
  z.object({ document_type: z.string(), version: z.int(), content_sha256: z.string(), size_bytes: z.int() }),
);

/** A row of `exports`. */
const exportRow = z.object({
  project_id: z.string(),
  id: z.string(),
  status: z.string(),
  manifest,
  file_path: z.string(),
  file_size_bytes: z.bigint(),
  file_sha256: z.string(),
  error_message: z.string(),
  download_count: z.bigint(),
  created_by: z.string().nullable(),
  caller: z.string(),
  correlation_id: z.string(),
  create_time: z.bigint(),
  complete_time: z.bigint().nullable(),
  expire_time: z.bigint(),
  row_version: z.bigint(),
  project_revision: z.bigint(),
});
export type ExportRow = z.infer<typeof exportRow>;

/** An export with the token of its lease; null unless PROCESSING. */
const heldRow = exportRow.extend({ lease_token: z.string().nullable() });
export type HeldRow = z.infer<typeof heldRow>;

/** An export as it is read: with its status by the database's clock. */
export const seenExportRow = exportRow.extend({ seen_status: z.string() });

/** The columns of an export `e`. */
const COLUMNS = sql.fragment`${sql.join(
  Object.keys(exportRow.shape).map((name) => sql.fragment`e.${sql.identifier([name])}`),
  sql.fragment`, `,
)}, export_status(e) as seen_status`;

/** What an export `e` weighs in a page, in bytes, at most; told without reading its manifest. */
export const EXPORT_BYTES = sql.fragment`e.manifest_entries * 132 + octet_length(e.file_path) + octet_length(e.error_message) + 1536`;

export const createExport = write({
  name: 'exports.create',
  params: { project: 'uuid', document_types: 'text[]', ttl_micros: 'int8' },
  row: exportRow,
  sql: (p, call) => sql.fragment`create_export(${call}, ${p.project}, ${p.document_types},
  ${p.ttl_micros} * interval '1 microsecond')`,
});

export const startExport = write({
  name: 'exports.start',
  params: { project: 'uuid', id: 'uuid', lease_seconds: 'int4' },
  row: heldRow,
  sql: (p, call) => sql.fragment`start_export(${call}, ${p.project}, ${p.id}, ${p.lease_seconds})`,
});

/** Null when nothing waits. */
export const claimExport = write({
  name: 'exports.claim',
  params: { lease_seconds: 'int4' },
  row: z.union([heldRow, z.object({ id: z.null() }).transform(() => null)]),
  sql: (p, call) => sql.fragment`claim_export(${call}, ${p.lease_seconds})`,
});

/** COMPLETED brings the file, FAILED the error. */
export const endExport = write({
  name: 'exports.end',
  params: {
    project: 'uuid',
    id: 'uuid',
    status: 'text',
    token: 'text',
    file_path: 'text?',
    file_size_bytes: 'int8?',
    file_sha256: 'text?',
    error_message: 'text?',
  },
  row: exportRow,
  sql: (p, call) => sql.fragment`end_export(${call}, ${p.project}, ${p.id}, ${p.status}, ${p.token}, ${p.file_path},
  ${p.file_size_bytes}, ${p.file_sha256}, ${p.error_message})`,
});

export const recordDownload = write({
  name: 'exports.record_download',
  params: { project: 'uuid', id: 'uuid' },
  row: exportRow,
  sql: (p, call) => sql.fragment`record_download(${call}, ${p.project}, ${p.id})`,
});

export const getExport = read({
  name: 'exports.get',
  need: 'member',
  params: { id: 'uuid' },
  row: seenExportRow,
  sql: (p) => sql.fragment`select ${COLUMNS} from exports e where e.project_id = scope.project_id and e.id = ${p.id}`,
});

/** Newest first, before the export `before`, as many as fit into a page, and the one it ends before. */
export const listExports = read({
  name: 'exports.list',
  need: 'member',
  params: { before: 'uuid?', most: 'int4' },
  row: seenExportRow.extend({ fits: z.boolean() }),
  sql: (p) => sql.fragment`
select ${COLUMNS}, sized.fits
from (
  select k.project_id, k.id, k.bytes <= ${PAGE_BYTES}::bigint or k.bytes = k.weight as fits
  from (
    select k.*, sum(k.weight) over (order by k.id desc) as bytes
    from (
      select e.project_id, e.id, ${EXPORT_BYTES} as weight
      from exports e
      where e.project_id = scope.project_id and (${p.before} is null or e.id < ${p.before})
      order by e.id desc limit ${p.most}
    ) as k
  ) as k
  where k.bytes - k.weight <= ${PAGE_BYTES}::bigint
) as sized
join exports e on e.project_id = scope.project_id and e.id = sized.id
order by e.id desc`,
});

/** One version of an export's manifest, with its content; none when the export is gone. */
export const getEntry = read({
  name: 'exports.get_entry',
  need: 'member',
  params: { id: 'uuid', document_type: 'text', version: 'int4' },
  row: VersionRow.extend({ content: z.string(), seen_status: z.string() }),
  sql: (p) => sql.fragment`
select v.*, b.content, export_status(e) as seen_status
from exports e
join document_versions v on v.project_id = scope.project_id and v.document_type = ${p.document_type} and v.version = ${p.version}
join document_bodies b on b.project_id = scope.project_id and b.sha256 = v.content_sha256
where e.project_id = scope.project_id and e.id = ${p.id}`,
});
