import type { MessageInitShape } from '@bufbuild/protobuf';
import { callParams } from '../db/statement.ts';
import { ExecutionStatus } from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import {
  MemberSchema,
  ProjectSchema,
  type ProjectService,
  ProjectStatus,
  type ProjectUsageSchema,
  Role,
  Visibility,
} from '../gen/jeex/persistence/v1/project_service_pb.js';
import { invalidField, type Refusal, refusalOf } from '../refusal.ts';
import type { Context } from '../rpc/context.ts';
import { enumNames, etag, oneOr, optionalTimestamp, rowVersionOf, timestamp, updatePaths } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { cutPage, encodedSize, pageSize } from '../rpc/page.ts';
import { languageFault, ownerFault, PROJECT_PATHS } from './projects.ts';
import * as statements from './sql.ts';

const status = enumNames(ProjectStatus);
const visibility = enumNames(Visibility);
const role = enumNames(Role);
const executionStatus = enumNames(ExecutionStatus);

type Project = MessageInitShape<typeof ProjectSchema>;
type Member = MessageInitShape<typeof MemberSchema>;

const toProject = (row: statements.ProjectRow): Project => ({
  id: row.id,
  name: row.name,
  status: status.value(row.status),
  currentStep: row.current_step,
  language: row.language,
  visibility: visibility.value(row.visibility),
  metadata: row.metadata,
  createdBy: row.created_by ?? '',
  myRole: row.role === null ? Role.UNSPECIFIED : role.value(row.role),
  createTime: timestamp(row.create_time),
  updateTime: timestamp(row.update_time),
  deleteTime: optionalTimestamp(row.delete_time),
  purgeTime: optionalTimestamp(row.purge_time),
  revision: row.revision,
  etag: etag(row.row_version),
});

const toMember = (row: statements.MemberRow): Member => ({
  projectId: row.project_id,
  userId: row.user_id,
  role: role.value(row.role),
  createTime: timestamp(row.create_time),
  updateTime: timestamp(row.update_time),
});

const toUsage = (row: statements.UsageRow): MessageInitShape<typeof ProjectUsageSchema> => ({
  projectId: row.id,
  documents: row.documents,
  versions: row.versions,
  contentBytes: row.content_bytes,
  exports: row.exports,
  executions: Object.entries(row.counts ?? {}).map(([name, count]) => ({
    status: executionStatus.value(name),
    count: BigInt(count),
  })),
  quota: {
    contentBytes: row.quota_content_bytes,
    documents: row.quota_documents,
    versions: row.quota_versions,
    executions: row.quota_executions,
  },
});

const notFound = (): Refusal => refusalOf('PROJECT_NOT_FOUND');

const POPULATED: Readonly<Record<(typeof PROJECT_PATHS)[number], (project: Project) => boolean>> = {
  name: (project) => project.name !== '',
  status: (project) => project.status !== ProjectStatus.UNSPECIFIED,
  current_step: (project) => project.currentStep !== 0,
  visibility: (project) => project.visibility !== Visibility.UNSPECIFIED,
  metadata: (project) => project.metadata !== undefined,
  language: (project) => project.language !== '',
};

export const projectHandlers = ({ db, pager }: Context): ServiceHandlers<typeof ProjectService> => ({
  createProject: async (request, call) => {
    const language = languageFault(request.language);
    if (language !== null) throw invalidField('language', language);
    const owner = ownerFault(call.actor, request.createdBy);
    if (owner !== null) throw invalidField('created_by', owner);
    const params = {
      name: request.name,
      language: request.language,
      metadata: JSON.stringify(request.metadata ?? {}),
      owner: request.createdBy || null,
      ...callParams(call),
    };
    return { project: toProject(oneOr(await db.run(statements.createProject, params, call), notFound)) };
  },

  getProject: async (request, call) => {
    const params = { project: request.id, actor: call.actor, show_deleted: request.showDeleted };
    return { project: toProject(oneOr(await db.run(statements.getProject, params, call), notFound)) };
  },

  listProjects: async (request, call) => {
    const limit = pageSize(request.pageSize);
    const after = pager.read(call, request, request.pageToken);
    const params = {
      actor: call.actor,
      statuses: request.statuses.map(status.text),
      show_deleted: request.showDeleted,
      before: after === null ? null : String(after[0]),
      most: limit + 1,
    };
    const projects = (await db.run(statements.listProjects, params, call)).map(toProject);
    const page = cutPage(
      projects,
      limit,
      (project) => encodedSize(ProjectSchema, project),
      (project) => [project.id ?? ''],
    );
    return { projects: [...page.rows], nextPageToken: pager.write(call, request, page.next) };
  },

  updateProject: async (request, call) => {
    const project = request.project;
    if (project === undefined) throw invalidField('project', 'is required');
    const paths = updatePaths(request.updateMask, PROJECT_PATHS, (path) => POPULATED[path](project));
    for (const path of paths) {
      if (path !== 'metadata' && path !== 'language' && !POPULATED[path](project)) {
        throw invalidField(`project.${path}`, 'must have a value when the update names it');
      }
    }
    const params = {
      project: project.id,
      etag: rowVersionOf(request.etag || project.etag),
      name: paths.has('name') ? project.name : null,
      status: paths.has('status') ? status.text(project.status) : null,
      step: paths.has('current_step') ? project.currentStep : null,
      visibility: paths.has('visibility') ? visibility.text(project.visibility) : null,
      metadata: paths.has('metadata') ? JSON.stringify(project.metadata ?? {}) : null,
      language: paths.has('language') ? project.language : null,
      ...callParams(call),
    };
    return { project: toProject(oneOr(await db.run(statements.updateProject, params, call), notFound)) };
  },

  deleteProject: async (request, call) => {
    const params = { project: request.id, etag: rowVersionOf(request.etag), deleted: true, ...callParams(call) };
    return { project: toProject(oneOr(await db.run(statements.setProjectDeleted, params, call), notFound)) };
  },

  undeleteProject: async (request, call) => {
    const params = { project: request.id, etag: rowVersionOf(request.etag), deleted: false, ...callParams(call) };
    return { project: toProject(oneOr(await db.run(statements.setProjectDeleted, params, call), notFound)) };
  },

  purgeProject: async (request, call) => {
    const rows = await db.run(statements.purgeProject, { project: request.id, ...callParams(call) }, call);
    const purged = oneOr(rows, notFound);
    return { projectId: purged.project_id, purgeTime: timestamp(purged.purge_time), revision: purged.revision };
  },

  setMember: async (request, call) => {
    const params = {
      project: request.projectId,
      user: request.userId,
      role: role.text(request.role),
      ...callParams(call),
    };
    return { member: toMember(oneOr(await db.run(statements.setMember, params, call), notFound)) };
  },

  removeMember: async (request, call) => {
    const params = { project: request.projectId, user: request.userId, ...callParams(call) };
    return { member: toMember(oneOr(await db.run(statements.removeMember, params, call), notFound)) };
  },

  listMembers: async (request, call) => {
    const limit = pageSize(request.pageSize);
    const after = pager.read(call, request, request.pageToken);
    const params = {
      project: request.projectId,
      actor: call.actor,
      after: after === null ? null : String(after[0]),
      most: limit + 1,
    };
    const members = (await db.run(statements.listMembers, params, call)).map(toMember);
    const page = cutPage(
      members,
      limit,
      (member) => encodedSize(MemberSchema, member),
      (member) => [member.userId ?? ''],
    );
    return { members: [...page.rows], nextPageToken: pager.write(call, request, page.next) };
  },

  getProjectUsage: async (request, call) => {
    const params = { project: request.projectId, actor: call.actor };
    return { usage: toUsage(oneOr(await db.run(statements.getUsage, params, call), notFound)) };
  },

  setProjectQuota: async (request, call) => {
    const quota = request.quota;
    const params = {
      project: request.projectId,
      content_bytes: quota?.contentBytes ?? null,
      documents: quota?.documents ?? null,
      versions: quota?.versions ?? null,
      executions: quota?.executions ?? null,
      ...callParams(call),
    };
    return { usage: toUsage(oneOr(await db.run(statements.setQuota, params, call), notFound)) };
  },
});
