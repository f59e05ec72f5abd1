import type { Client } from 'pg';
import { readCursor } from '../db/cursor.ts';

/** A user's own row, times as ISO 8601 in UTC. An erased one has a `deleteTime` and nothing personal. */
interface ExportedUser {
  readonly id: string;
  readonly email: string | null;
  readonly name: string | null;
  readonly profile: unknown;
  readonly createTime: string;
  readonly updateTime: string;
  readonly lastLoginTime: string | null;
  readonly deleteTime: string | null;
}

/** What the database holds about a user. */
export interface Export {
  readonly user: ExportedUser;
  /** Lists of JSON objects by name, to be read one after the other. */
  readonly lists: readonly (readonly [name: string, items: AsyncIterable<unknown>])[];
}

/** What stands about a user besides its row: queries of one JSON column, `$1` being the user's id. */
const LISTS = {
  memberships: `select json_build_object('projectId', project_id, 'role', role, 'createTime', create_time,
    'updateTime', update_time) as item
    from project_members where user_id = $1 order by project_id`,
  projectsCreated: `select json_build_object('id', id, 'name', name, 'createTime', create_time, 'deleteTime', delete_time) as item
    from projects where created_by = $1 order by id`,
  versions: `select json_build_object('projectId', project_id, 'documentType', document_type, 'version', version,
    'contentSha256', encode(content_sha256, 'hex'), 'sizeBytes', size_bytes, 'reason', reason, 'createTime', create_time) as item
    from document_versions where created_by = $1 order by project_id, document_type, version`,
  executions: `select json_build_object('projectId', project_id, 'id', id, 'agentType', agent_type, 'attempt', attempt,
    'status', status, 'errorMessage', error_message, 'cancelReason', cancel_reason, 'model', model,
    'inputTokens', input_tokens, 'outputTokens', output_tokens, 'costMicros', cost_micros, 'caller', caller,
    'correlationId', correlation_id, 'createTime', create_time, 'startTime', start_time, 'completeTime', complete_time) as item
    from agent_executions where created_by = $1 order by project_id, id`,
  exports: `select json_build_object('projectId', project_id, 'id', id, 'status', status, 'errorMessage', error_message,
    'createTime', create_time, 'completeTime', complete_time, 'expireTime', expire_time) as item
    from exports where created_by = $1 order by project_id, id`,
  // What it did, and what was done about its memberships.
  changes: `select json_build_object('projectId', project_id, 'revision', revision, 'kind', kind, 'actorId', actor_id,
    'resourceId', resource_id, 'documentType', document_type, 'version', version, 'caller', caller,
    'correlationId', correlation_id, 'createTime', create_time) as item
    from changes where actor_id = $1 or (resource_id = $1 and kind like 'MEMBER\\_%') order by project_id, revision`,
  erasures: `select json_build_object('eraseTime', erase_time, 'caller', caller, 'correlationId', correlation_id) as item
    from erasures where user_id = $1`,
} as const;

const FETCH = 500;

interface Row {
  readonly profile: Buffer | null;
  readonly json: ExportedUser;
}

/**
 * What the database holds about a user, of one moment: all but stored replies, which only the request they answer can open,
 * and what belongs to the projects (documents' content, inputs and outputs of executions); the lists are read with a cursor as they are consumed, so that
 * their length does not matter. As the owner, who sees every project, in a transaction that ends with the connection.
 * @param openProfile opens the sealed profile
 * @returns null when there is no such user
 */
export async function exportUser(
  owner: Client,
  id: string,
  openProfile: (envelope: Buffer) => unknown,
): Promise<Export | null> {
  await owner.query('begin isolation level repeatable read read only');
  const { rows } = await owner.query<Row>(
    `select profile, json_build_object('id', id, 'email', email, 'name', name, 'profile', null, 'createTime', create_time,
       'updateTime', update_time, 'lastLoginTime', last_login_time, 'deleteTime', delete_time) as json
     from users where id = $1`,
    [id],
  );
  const [row] = rows;
  if (row === undefined) return null;
  const profile = row.profile === null ? null : openProfile(row.profile);
  const lists = Object.entries(LISTS).map(
    ([name, query]) => [name, itemsOf(readCursor(owner, query, [id], FETCH))] as const,
  );
  return { user: { ...row.json, profile }, lists };
}

async function* itemsOf(rows: AsyncIterable<{ readonly item: unknown }>): AsyncGenerator<unknown> {
  for await (const { item } of rows) yield item;
}
