import { randomUUID } from 'node:crypto';
import type { Client } from 'pg';
import type { CallOptions } from './client.ts';
import type { Clients } from './service.ts';

/** The kinds of a project's changes, in order. */
export const changeKinds = async (owner: Client, projectId: string): Promise<string[]> => {
  const { rows } = await owner.query<{ kind: string }>(
    'select kind from changes where project_id = $1 order by revision',
    [projectId],
  );
  return rows.map(({ kind }) => kind);
};

/** An agent type that nobody else has, since a claim looks at every project. */
export const newAgent = (): string => `agent-${randomUUID()}`;

/** A new run of a project, RUNNING. */
export const startRun = async ({ executions }: Clients, projectId: string, options: CallOptions = {}) => {
  const request = { projectId, agentType: newAgent(), start: true };
  const { execution, leaseToken } = await executions.createExecution(request, options);
  return { id: execution?.id ?? '', leaseToken, execution };
};
