/** A table whose rows belong to a project. */
export interface ProjectTable {
  readonly name: string;
  /** The column that names the project. */
  readonly project: 'id' | 'project_id';
  /** In which order its rows go into a file and out of it: each behind those it refers to. */
  readonly order: string;
  /** How many rows are held at a time. */
  readonly fetch: number;
  /** Whether a row may be there already, and is then left: one that the database makes as others come, or a newer reply. */
  readonly mayExist?: true;
}

const of = (name: string, order: string, fetch = 500): ProjectTable => ({ name, project: 'project_id', order, fetch });

/** Rows of up to 3 MiB. */
const FEW = 8;

/** Everything a project is, each table behind those it refers to. */
export const PROJECT_TABLES: readonly ProjectTable[] = [
  { name: 'projects', project: 'id', order: 'id', fetch: 1 },
  of('project_members', 'user_id'),
  of('document_bodies', 'sha256', FEW),
  of('documents', 'document_type', FEW),
  of('agent_executions', 'project_revision, id'),
  // A status that nothing is in any more has its row still.
  { ...of('execution_counts', 'status'), mayExist: true },
  of('document_versions', 'document_type, version'),
  of('execution_payloads', 'execution_id, kind', FEW),
  of('exports', 'id', FEW),
  of('changes', 'revision'),
  { ...of('requests', 'request_id, rpc, caller, actor_id', FEW), mayExist: true },
];
