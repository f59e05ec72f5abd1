import { z } from 'zod';
import { EACH_RESULT, MOST_TOGETHER_BYTES, pointRead, read, sql, statement, write } from '../db/statement.ts';
import { HEADLINE_START, HEADLINE_STOP } from './documents.ts';
import { ENTRY_TYPES } from './entries.ts';
import { VersionRow } from './version.ts';

/** Bytes a list reads from the database before its page ends; more would not fit the answer. */
const PAGE_BYTES = sql.literalValue(String(3 * 1024 * 1024));
/** Bytes that one page of a search makes headlines of, and answers. */
const SEARCH_BYTES = sql.literalValue(String(2 * 1024 * 1024));

/** Every column of a version `v` but its project, which comes from the scope. */
const VERSION = sql.fragment`v.id, v.document_type, v.version, v.content_sha256, v.size_bytes, v.metadata, v.reason,
  v.restored_from_version, v.readability_score, v.grammar_score, v.created_by, v.caller, v.correlation_id, v.execution_id,
  v.create_time, v.project_revision`;

type Fragment = typeof VERSION;

/** What a version `v` weighs in a page, without its content. */
const BASIC_BYTES = sql.fragment`octet_length(v.metadata::text) + octet_length(v.reason) + 512`;
const weight = (full: Fragment): Fragment =>
  sql.fragment`${BASIC_BYTES} + case when ${full} then v.size_bytes else 0 end as weight`;

/** The bytes of a page up to a row, and the row's place in it. */
const running = (order: Fragment): Fragment =>
  sql.fragment`sum(v.weight) over (order by ${order}) as bytes, row_number() over (order by ${order}) as place`;

/** Whether a row `v` is in the page: the first one always. The row after the last is read too, without its content. */
const FITS = sql.fragment`(v.bytes <= ${PAGE_BYTES}::bigint or v.place = 1)`;
const READ = sql.fragment`(v.bytes - v.weight <= ${PAGE_BYTES}::bigint or v.place = 2)`;
const body = (full: Fragment): Fragment => sql.fragment`
left join document_bodies b on ${full} and b.project_id = scope.project_id and b.sha256 = v.content_sha256`;

/** The version that was the head of `d` as of a revision; null when the document was not there yet. */
const headAt = (revision: Fragment): Fragment => sql.fragment`
  (select h.version from document_versions h
   where h.project_id = scope.project_id and h.document_type = d.document_type and h.project_revision <= ${revision}
   order by h.project_revision desc limit 1)`;

/**
 * Joins the version `v` of the document `d` that has a number. It is asked for as the last one up to that number, which no
 * plan can answer by reading the others: an estimate of one version per document, which is common, hides that cost.
 */
const version = (number: Fragment): Fragment => sql.fragment`lateral (
  select o.* from document_versions o
  where o.project_id = scope.project_id and o.document_type = d.document_type and o.version <= ${number}
  order by o.version desc limit 1
) as v on v.version = ${number}`;

const absent = z.object({ id: z.null() });
const content = z.string().nullable();
const fits = z.boolean();

export const appendVersions = write({
  name: 'documents.append',
  params: { project: 'uuid', ...ENTRY_TYPES, entry_field: 'text?' },
  row: VersionRow,
  ...EACH_RESULT,
  sql: (p, call) => sql.fragment`append_versions(${call}, ${p.project}, ${p.document_types}, ${p.contents}, ${p.hashes},
  ${p.metadatas}, ${p.reasons}, ${p.readabilities}, ${p.grammars}, ${p.expected}, ${p.executions}, ${p.entry_field})`,
});

export const restoreVersion = write({
  name: 'documents.restore',
  params: { project: 'uuid', document_type: 'text', version: 'int4', reason: 'text', expected: 'int4?' },
  row: VersionRow,
  sql: (p, call) => sql.fragment`restore_version(${call}, ${p.project}, ${p.document_type}, ${p.version}, ${p.reason},
  ${p.expected})`,
});

/** Whether a version `v` is small enough to be read together with others'. */
const SMALL = sql.fragment`v.size_bytes <= ${sql.literalValue(String(MOST_TOGETHER_BYTES))}::bigint`;

const dated = { known: z.boolean(), revision: z.bigint() };
const BODY = sql.fragment`b.content`;

/** What is too large to be read together with others' is left out, and said to be apart. */
const contentOf = (full: Fragment, together: boolean): { readonly columns: Fragment; readonly join: Fragment } =>
  together
    ? {
        columns: sql.fragment`${BODY}, ${full} and not ${SMALL} as apart`,
        join: body(sql.fragment`${full} and ${SMALL}`),
      }
    : { columns: BODY, join: body(full) };

/** One version, or why there is none: no row where the project has no such document. */
export const getVersion = pointRead({
  name: 'documents.get',
  need: 'reader',
  params: { document_type: 'text', version: 'int4', full: 'bool' },
  row: z.union([VersionRow.extend({ content }), absent]),
  sql: (p, together) => {
    const { columns, join } = contentOf(p.full, together);
    return sql.fragment`
select d.project_id, ${VERSION}, ${columns}
from documents d
left join ${version(sql.fragment`case when ${p.version} = 0 then d.head_version else ${p.version} end`)}${join}
where d.project_id = scope.project_id and d.document_type = ${p.document_type}`;
  },
});

/** The same as of a revision: `known` tells whether the project had the document then. */
export const getVersionAt = pointRead({
  name: 'documents.get_at',
  need: 'reader',
  params: { document_type: 'text', version: 'int4', at_revision: 'int8', full: 'bool' },
  row: z.union([VersionRow.extend({ ...dated, content }), absent.extend(dated)]),
  sql: (p, together) => {
    const { columns, join } = contentOf(p.full, together);
    return sql.fragment`
select p.id as project_id, p.revision, head.version is not null as known, ${VERSION}, ${columns}
from projects p
left join documents d on d.project_id = scope.project_id and d.document_type = ${p.document_type}
left join lateral (select ${headAt(p.at_revision)} as version) as head on true
left join ${version(sql.fragment`case when ${p.version} = 0 then head.version else ${p.version} end`)}
  and v.version <= head.version${join}
where p.id = scope.project_id`;
  },
});

/** The versions of these names that exist, in the names' order, as many as fit into a page, and the one it ends before. */
export const batchGetVersions = read({
  name: 'documents.batch_get',
  need: 'reader',
  params: { document_types: 'text[]', versions: 'int4[]', full: 'bool' },
  row: VersionRow.extend({ content, fits }),
  sql: (p) => sql.fragment`
select scope.project_id, ${VERSION}, ${FITS} as fits, b.content
from (
  select v.*, ${running(sql.fragment`v.position`)}
  from (
    select v.*, n.position, ${weight(p.full)}
    from unnest(${p.document_types}, ${p.versions}) with ordinality as n (document_type, version, position)
    join documents d on d.project_id = scope.project_id and d.document_type = n.document_type
    join ${version(sql.fragment`case when n.version = 0 then d.head_version else n.version end`)}
  ) as v
) as v${body(sql.fragment`${p.full} and ${FITS}`)}
where ${READ}
order by v.position`,
});

const listed = { revision: z.bigint() };

/** Heads by type, after the type `after`; always at least a row, which tells the project's revision. */
export const listDocuments = read({
  name: 'documents.list',
  need: 'reader',
  params: { after: 'text', at_revision: 'int8', full: 'bool', most: 'int4' },
  row: z.union([VersionRow.extend({ ...listed, content, fits }), absent.extend(listed)]),
  sql: (p) => sql.fragment`
select p.id as project_id, p.revision, ${VERSION}, ${FITS} as fits, b.content
from projects p
left join lateral (
  select v.*, ${running(sql.fragment`v.document_type`)}
  from (
    select v.*, ${weight(p.full)}
    from (
      select d.document_type, head.version
      from documents d
      cross join lateral (
        select case when ${p.at_revision} = 0 then d.head_version else ${headAt(p.at_revision)} end as version
      ) as head
      where d.project_id = scope.project_id and d.document_type > ${p.after} and head.version is not null
      order by d.document_type limit ${p.most}
    ) as d
    join ${version(sql.fragment`d.version`)}
  ) as v
) as v on ${READ}${body(sql.fragment`${p.full} and ${FITS}`)}
where p.id = scope.project_id
order by v.document_type`,
});

/** Versions of a document, newest first, before the version `before`; no row when there is no such document. */
export const listVersions = read({
  name: 'documents.list_versions',
  need: 'reader',
  params: { document_type: 'text', before: 'int4?', full: 'bool', most: 'int4' },
  row: z.union([VersionRow.extend({ content, fits }), absent]),
  sql: (p) => sql.fragment`
select d.project_id, ${VERSION}, ${FITS} as fits, b.content
from documents d
left join lateral (
  select v.*, ${running(sql.fragment`v.version desc`)}
  from (
    select v.*, ${weight(p.full)}
    from document_versions v
    where v.project_id = scope.project_id and v.document_type = ${p.document_type}
      and (${p.before} is null or v.version < ${p.before})
    order by v.version desc limit ${p.most}
  ) as v
) as v on ${READ}${body(sql.fragment`${p.full} and ${FITS}`)}
where d.project_id = scope.project_id and d.document_type = ${p.document_type}
order by v.version desc`,
});

/** Two versions of a document; their contents only where they differ. No row when there is no such document. */
export const diffVersions = read({
  name: 'documents.diff',
  need: 'reader',
  params: { document_type: 'text', from: 'int4', to: 'int4' },
  row: z.object({ from_known: z.boolean(), to_known: z.boolean(), from_content: content, to_content: content }),
  sql: (p) => sql.fragment`
select d.project_id, f.id is not null as from_known, t.id is not null as to_known,
  fb.content as from_content, tb.content as to_content
from documents d
left join lateral (select v.* from (select) as one join ${version(p.from)}) as f on true
left join lateral (select v.* from (select) as one join ${version(p.to)}) as t on true
left join document_bodies fb on fb.project_id = scope.project_id and fb.sha256 = f.content_sha256
  and f.content_sha256 <> t.content_sha256
left join document_bodies tb on tb.project_id = scope.project_id and tb.sha256 = t.content_sha256
  and f.content_sha256 <> t.content_sha256
where d.project_id = scope.project_id and d.document_type = ${p.document_type}`,
});

const HEADLINE = sql.literalValue(
  `StartSel="${HEADLINE_START}", StopSel="${HEADLINE_STOP}", MaxFragments=3, MaxWords=30, MinWords=10, FragmentDelimiter=" … "`,
);

/**
 * Heads that match, best first, after the match `(after_rank, after_type)`. Ranks are single precision, which double
 * precision and JSON hold exactly. Ranking compares every pair of a query's words, so a long query ranks by how often any
 * of them occurs. Headlines are made for the page's rows only, and for 2 MiB of text at most.
 */
export const searchDocuments = read({
  name: 'documents.search',
  need: 'reader',
  params: { query: 'text', after_rank: 'float8?', after_type: 'text', most: 'int4' },
  row: VersionRow.extend({ rank: z.number(), headline: z.string().nullable() }),
  sql: (p) => sql.fragment`
select p.id as project_id, ${VERSION}, v.rank,
  case when v.bytes <= ${SEARCH_BYTES}::bigint or v.place = 1 then left(search_headline(p.language,
    translate(search_text(b.content), ${sql.literalValue(HEADLINE_START + HEADLINE_STOP)}, ''), asked.query, asked.terms,
    ${HEADLINE}), 2000)
  end as headline
from projects p
cross join lateral (
  select websearch_to_tsquery(search_config(p.language), ${p.query}) as query, search_terms(p.language, ${p.query}) as terms
  offset 0
) as asked
cross join lateral (
  select v.*, ${running(sql.fragment`v.rank desc, v.document_type`)}
  from (
    select v.*, d.rank, ${BASIC_BYTES} + least(v.size_bytes, 262144) as weight
    from (
      select r.* from (
        select d.document_type, d.head_version as version,
          ts_rank(made.vector, case when numnode(asked.query) > 16 then asked.terms else asked.query end)::double precision as rank
        from documents d
        cross join lateral (
          select case when d.search_version = d.head_version then d.search else (
            select search_vector(p.language, b.content)
            from (select) as one join ${version(sql.fragment`d.head_version`)}
            join document_bodies b on b.project_id = scope.project_id and b.sha256 = v.content_sha256
          ) end as vector offset 0
        ) as made
        where d.project_id = scope.project_id and made.vector @@ asked.query
      ) as r
      where ${p.after_rank} is null or r.rank < ${p.after_rank}
        or (r.rank = ${p.after_rank} and r.document_type > ${p.after_type})
      order by r.rank desc, r.document_type limit ${p.most}
    ) as d
    join ${version(sql.fragment`d.version`)}
  ) as v
) as v
join document_bodies b on b.project_id = scope.project_id and b.sha256 = v.content_sha256
where p.id = scope.project_id and (v.bytes - v.weight <= ${SEARCH_BYTES}::bigint or v.place = 2)
order by v.rank desc, v.document_type`,
});

/** Makes the search vectors of heads that have none of their own yet, for a background loop; answers how many. */
export const indexHeads = statement({
  name: 'documents.index_heads',
  params: { most: 'int4' },
  row: z.object({ indexed: z.int() }),
  sql: (p) => sql.fragment`select index_heads(${p.most}) as indexed`,
});
