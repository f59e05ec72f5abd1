import type { JsonObject } from '@bufbuild/protobuf';
import { z } from 'zod';
import { pointRead, read, sql, statement, write } from '../db/statement.ts';

const row = z.object({
  id: z.string(),
  name: z.string(),
  status: z.string(),
  current_step: z.number(),
  language: z.string(),
  visibility: z.string(),
  // Not looked into: it was checked on its way in, and z.record would drop a key such as __proto__.
  metadata: z.custom<JsonObject>(),
  created_by: z.string().nullable(),
  create_time: z.bigint(),
  update_time: z.bigint(),
  delete_time: z.bigint().nullable(),
  purge_time: z.bigint().nullable(),
  row_version: z.bigint(),
  revision: z.bigint(),
  role: z.string().nullable(),
});
export type ProjectRow = z.infer<typeof row>;

const memberRow = z.object({
  project_id: z.string(),
  user_id: z.string(),
  role: z.string(),
  create_time: z.bigint(),
  update_time: z.bigint(),
});
export type MemberRow = z.infer<typeof memberRow>;

const usageRow = z.object({
  id: z.string(),
  documents: z.bigint(),
  versions: z.bigint(),
  content_bytes: z.bigint(),
  exports: z.bigint(),
  quota_content_bytes: z.bigint(),
  quota_documents: z.bigint(),
  quota_versions: z.bigint(),
  quota_executions: z.bigint(),
  counts: z.record(z.string(), z.string()).nullable(),
});
export type UsageRow = z.infer<typeof usageRow>;

const WITH_ROLE = sql.fragment`(w.result).*, w.role`;

export const getProject = pointRead({
  name: 'projects.get',
  need: 'reader',
  params: { show_deleted: 'bool' },
  withDeleted: (p) => sql.fragment`${p.show_deleted}`,
  row,
  sql: () => sql.fragment`
select p.id as project_id, p.id, p.name, p.status, p.current_step, p.language, p.visibility, p.metadata, p.created_by,
  p.create_time, p.update_time, p.delete_time, p.purge_time, p.row_version, p.revision, scope.role
from projects p where p.id = scope.project_id`,
});

export const listProjects = statement({
  name: 'projects.list',
  params: { actor: 'uuid?', statuses: 'text[]', show_deleted: 'bool', before: 'uuid?', most: 'int4' },
  row,
  sql: (p) => sql.fragment`
select l.verdict, (l.project).*, l.role
from list_projects(${p.actor}, ${p.statuses}, ${p.show_deleted}, ${p.before}, ${p.most}) as l`,
});

export const createProject = write({
  name: 'projects.create',
  params: { name: 'text', language: 'text', metadata: 'jsonb', owner: 'uuid?' },
  row,
  select: WITH_ROLE,
  sql: (p, call) => sql.fragment`create_project(${call}, ${p.name}, ${p.language}, ${p.metadata}, ${p.owner})`,
});

/** Null leaves a field as it is. */
export const updateProject = write({
  name: 'projects.update',
  params: {
    project: 'uuid',
    etag: 'int8?',
    name: 'text?',
    status: 'text?',
    step: 'int4?',
    visibility: 'text?',
    metadata: 'jsonb?',
    language: 'text?',
  },
  row,
  select: WITH_ROLE,
  sql: (p, call) => sql.fragment`update_project(${call}, ${p.project}, ${p.etag}, ${p.name}, ${p.status}, ${p.step},
  ${p.visibility}, ${p.metadata}, ${p.language})`,
});

export const setProjectDeleted = write({
  name: 'projects.set_deleted',
  params: { project: 'uuid', etag: 'int8?', deleted: 'bool' },
  row,
  select: WITH_ROLE,
  sql: (p, call) => sql.fragment`set_project_deleted(${call}, ${p.project}, ${p.etag}, ${p.deleted})`,
});

export const purgeProject = write({
  name: 'projects.purge',
  params: { project: 'uuid' },
  row: z.object({ project_id: z.string(), purge_time: z.bigint(), revision: z.bigint() }),
  sql: (p, call) => sql.fragment`purge_project(${call}, ${p.project})`,
});

export const setMember = write({
  name: 'projects.set_member',
  params: { project: 'uuid', user: 'uuid', role: 'text' },
  row: memberRow,
  sql: (p, call) => sql.fragment`set_member(${call}, ${p.project}, ${p.user}, ${p.role})`,
});

export const removeMember = write({
  name: 'projects.remove_member',
  params: { project: 'uuid', user: 'uuid' },
  row: memberRow,
  sql: (p, call) => sql.fragment`remove_member(${call}, ${p.project}, ${p.user})`,
});

export const listMembers = read({
  name: 'projects.list_members',
  need: 'member',
  params: { after: 'uuid?', most: 'int4' },
  row: memberRow,
  sql: (p) => sql.fragment`
select m.* from project_members m
where m.project_id = scope.project_id and (${p.after} is null or m.user_id > ${p.after})
order by m.user_id limit ${p.most}`,
});

export const getUsage = read({
  name: 'projects.get_usage',
  need: 'member',
  params: {},
  row: usageRow,
  sql: () => sql.fragment`
select p.id as project_id, p.id, p.documents, p.versions, p.content_bytes, p.exports, p.quota_content_bytes,
  p.quota_documents, p.quota_versions, p.quota_executions,
  (select jsonb_object_agg(e.status, e.executions::text) from execution_counts e where e.project_id = scope.project_id) as counts
from projects p where p.id = scope.project_id`,
});

/** Null leaves a quota as it is. */
export const setQuota = write({
  name: 'projects.set_quota',
  params: { project: 'uuid', content_bytes: 'int8?', documents: 'int8?', versions: 'int8?', executions: 'int8?' },
  row: usageRow,
  select: sql.fragment`(w.result).*, w.counts`,
  sql: (p, call) => sql.fragment`set_project_quota(${call}, ${p.project}, ${p.content_bytes}, ${p.documents},
  ${p.versions}, ${p.executions})`,
});
