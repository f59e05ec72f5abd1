import { randomUUID } from 'node:crypto';
import { after } from 'node:test';
import { Client } from 'pg';
import type { CallOptions } from './client.ts';
import type { TestDatabase } from './postgres.ts';
import type { Clients } from './service.ts';

/** A connection, closed after the file's tests. */
export const connectAs = async (url: string): Promise<Client> => {
  const client = new Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  await client.query('set search_path = jeex');
  after(() => client.end());
  return client;
};

/** A connection as the schema's owner, who may look at and alter what no call can. */
export const useOwner = (db: TestDatabase): Promise<Client> => connectAs(db.ownerUrl);

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
