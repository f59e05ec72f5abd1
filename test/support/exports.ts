import { createHash, randomUUID } from 'node:crypto';
import type { Client } from 'pg';
import type { Export } from '../../src/gen/jeex/persistence/v1/export_service_pb.js';
import type { CallOptions } from './client.ts';
import type { Clients } from './service.ts';

export const sha256 = (text: string): string => createHash('sha256').update(text, 'utf8').digest('hex');

/** A file that a worker could have made. */
export const FILE = { filePath: 'exports/a.zip', fileSizeBytes: 10n, fileSha256: sha256('a file') };

/** Appends a version with a content of its own and answers that. */
export const append = async (
  { documents }: Clients,
  projectId: string,
  documentType: string,
  options: CallOptions = {},
): Promise<string> => {
  const content = `# ${documentType}\n${randomUUID()} – ünïcödé 🙂\n`;
  await documents.appendVersion({ projectId, documentType, content }, options);
  return content;
};

/** A new export of all documents; asked for by the system unless an actor is given. */
export const newExport = async ({ exports }: Clients, projectId: string, options: CallOptions = {}): Promise<Export> =>
  (await exports.createExport({ projectId }, options)).export as Export;

/** An export that a worker holds. */
export const startedExport = async (clients: Clients, projectId: string) => {
  const { id } = await newExport(clients, projectId);
  const { leaseToken } = await clients.exports.startExport({ projectId, id });
  return { projectId, id, leaseToken };
};

/** An export that is COMPLETED. */
export const completedExport = async (clients: Clients, projectId: string) => {
  const started = await startedExport(clients, projectId);
  await clients.exports.completeExport({ ...started, ...FILE });
  return { projectId, id: started.id };
};

/** Moves an export into the past, so that it expired a second ago. */
export const expire = (owner: Client, id: string) =>
  owner.query(
    `update exports set create_time = clock_timestamp() - interval '2 hours',
       expire_time = clock_timestamp() - interval '1 second' where id = $1`,
    [id],
  );

/** Lets a lease run out. */
export const lapse = (owner: Client, id: string) =>
  owner.query(`update exports set lease_expire_time = clock_timestamp() - interval '1 millisecond' where id = $1`, [
    id,
  ]);
