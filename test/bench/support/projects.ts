import type { Client } from 'pg';
import { SMALL } from './world.ts';

/** What a body is filled with, to 1.2 KB. */
const FILLER = 'what it says is said again, in the same words, until it is long enough; ';

/**
 * Makes projects of one owner, each with one document of so many versions that share a body, inside the server: neither
 * triggers nor foreign keys look at rows that are right as they are made. 100 000 with a million versions take about a minute.
 * @returns their ids
 */
export const makeProjects = async (
  admin: Client,
  actor: string,
  count: number,
  versions: number,
): Promise<string[]> => {
  await admin.query('begin');
  await admin.query('set local session_replication_role = replica; set local synchronous_commit = off');
  const { rows } = await admin.query<{ id: string }>(
    `with made as (
       insert into projects (name, language, created_by, owners, members, documents, versions, content_bytes, revision)
       select 'Bench ' || i, 'en', $1::uuid, 1, 1, 1, $3::int, $3::int * 1200, $3::int
       from generate_series(1, $2::int) i returning id
     ), owned as (
       insert into project_members (project_id, user_id, role) select id, $1::uuid, 'OWNER' from made
     ), texts as (
       select id, rpad(id::text || ' ', 1200, $5::text) as content from made
     ), bodies as (
       insert into document_bodies (project_id, sha256, content, size_bytes)
       select id, sha256(content::bytea), content, 1200 from texts
     ), heads as (
       insert into documents (project_id, document_type, head_version, search_version, search)
       select id, $4::text, $3::int, $3::int, '' from made
     ), versions as (
       insert into document_versions (project_id, document_type, version, content_sha256, size_bytes, created_by, caller,
         correlation_id, create_time, project_revision)
       select id, $4::text, v, sha256(content::bytea), 1200, $1::uuid, 'bench', gen_random_uuid(), now(), v
       from texts, generate_series(1, $3::int) v
     )
     select id from made`,
    [actor, count, versions, SMALL, FILLER],
  );
  await admin.query('commit');
  await admin.query('vacuum analyze');
  return rows.map(({ id }) => id);
};
