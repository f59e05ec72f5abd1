import type { Client } from 'pg';
import type { Asked } from './recording.ts';

const LIVE = 'from projects p where p.delete_time is null';
const ofLive = (table: string) => `from ${table} e join projects p on p.id = e.project_id where p.delete_time is null`;
const PROJECT = `json_build_object('projectId', p.id, 'pageSize', 1000)`;
const RESOURCE = `json_build_object('projectId', e.project_id, 'id', e.id)`;
const DOCUMENT = `'projectId', e.project_id, 'documentType', e.document_type`;

/** By RPC: the requests that read everything a database holds, and for whom, where that is not the system. */
const READS: Readonly<Record<string, string>> = {
  'UserService/GetUser': `select json_build_object('id', id) as request from users order by id`,
  'UserService/ListUsers': `select json_build_object('pageSize', 1000) as request`,
  'UserService/GetUserByEmail': `select json_build_object('email', upper(email)) as request
    from users where delete_time is null order by id`,
  'ProjectService/GetProject': `select m.user_id as actor, json_build_object('id', p.id, 'showDeleted', true) as request
    from project_members m join projects p on p.id = m.project_id
    where p.delete_time is null or m.role = 'OWNER' order by p.id, m.user_id`,
  'ProjectService/ListProjects': `select distinct m.user_id as actor, '{"pageSize": 1000, "showDeleted": true}'::jsonb as request
    from project_members m order by m.user_id`,
  'ProjectService/ListMembers': `select ${PROJECT} as request ${LIVE} order by p.id`,
  'ProjectService/GetProjectUsage': `select json_build_object('projectId', p.id) as request ${LIVE} order by p.id`,
  'DocumentService/ListDocuments': `select ${PROJECT} as request ${LIVE} order by p.id`,
  'DocumentService/ListVersions': `select json_build_object(${DOCUMENT}, 'pageSize', 1000) as request
    ${ofLive('documents')} order by e.project_id, e.document_type`,
  'DocumentService/GetVersion': `select json_build_object(${DOCUMENT}, 'version', e.version) as request
    ${ofLive('document_versions')} order by e.project_id, e.document_type, e.version`,
  'DocumentService/SearchDocuments': `select json_build_object('projectId', p.id, 'query', 'service') as request
    ${LIVE} order by p.id`,
  'AgentExecutionService/GetExecution': `select ${RESOURCE} as request ${ofLive('agent_executions')} order by e.id`,
  'AgentExecutionService/ListExecutions': `select ${PROJECT} as request ${LIVE} order by p.id`,
  'ExportService/GetExport': `select ${RESOURCE} as request ${ofLive('exports')} order by e.id`,
  'ExportService/ListExports': `select ${PROJECT} as request ${LIVE} order by p.id`,
  'ExportService/StreamExportContent': `select ${RESOURCE} as request ${ofLive('exports')} order by e.id`,
  'ChangeService/ListChanges': `select ${PROJECT} as request ${LIVE} order by p.id`,
  'ChangeService/GetTimeline': `select distinct on (e.project_id, e.correlation_id) json_build_object(
    'projectId', e.project_id, 'correlationId', e.correlation_id, 'pageSize', 1000) as request
    ${ofLive('agent_executions')} order by e.project_id, e.correlation_id`,
};

/** Calls that read every entity a database holds. @param client a superuser, whom no policy narrows */
export const readsOf = async (client: Client): Promise<Asked[]> => {
  const asked: Asked[] = [];
  for (const [call, text] of Object.entries(READS)) {
    const { rows } = await client.query<{ actor?: string; request: Asked['request'] }>(text);
    asked.push(...rows.map(({ actor, request }) => ({ call, ...(actor !== undefined && { actor }), request })));
  }
  return asked;
};
