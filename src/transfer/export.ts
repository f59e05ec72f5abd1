import { createHash } from 'node:crypto';
import type { Client } from 'pg';
import { readCursor } from '../db/cursor.ts';
import { VERSION } from '../version.ts';
import { headerLine, rowLine, trailerLine } from './file.ts';
import { PROJECT_TABLES, type ProjectTable } from './tables.ts';

/** What an export has written. */
export interface Exported {
  readonly project: string;
  /** In decimal. */
  readonly revision: string;
  readonly rows: number;
  readonly bytes: number;
  readonly sha256: string;
}

export interface ExportOptions {
  /** The schema's owner, who sees every project. */
  readonly client: Client;
  readonly project: string;
  readonly signal: AbortSignal;
  /** Told after each row. */
  readonly onProgress: (rows: number, bytes: number) => void;
}

/** Whom the rows of a project refer to. */
const USERS = `select array(
  select created_by from projects where id = $1 union select user_id from project_members where project_id = $1
  union select created_by from document_versions where project_id = $1
  union select created_by from agent_executions where project_id = $1
  union select created_by from exports where project_id = $1
  union select actor_id from changes where project_id = $1
  except select null order by 1)::text[] as users`;

/**
 * A project as the lines of a file, as it is at one moment, however long the reading takes; what is sealed stays so. A file
 * without its last line is none.
 * @throws Error when there is no such project
 */
export async function* exportProject(options: ExportOptions): AsyncGenerator<string, Exported> {
  const { client, project, signal, onProgress } = options;
  await client.query('begin isolation level repeatable read read only');
  const hash = createHash('sha256');
  const counts: Record<string, number> = {};
  let rows = 0;
  let bytes = 0;
  const written = (line: string): string => {
    hash.update(line);
    bytes += Buffer.byteLength(line);
    return line;
  };
  const head = await readHead(client, project);
  yield written(headerLine(head));
  for (const table of PROJECT_TABLES) {
    for await (const { json } of readTable(client, table, project)) {
      signal.throwIfAborted();
      yield written(rowLine({ table: table.name, json }));
      counts[table.name] = (counts[table.name] ?? 0) + 1;
      rows += 1;
      onProgress(rows, bytes);
    }
  }
  const sha256 = hash.digest('hex');
  yield trailerLine(counts, sha256);
  await client.query('commit');
  return { project, revision: head.revision, rows, bytes, sha256 };
}

const readHead = async (client: Client, project: string) => {
  const { rows } = await client.query<{ revision: string; purged: boolean; time: Date; schema: number }>(
    `select revision::text, coalesce(purge_time <= now(), false) as purged, now() as time,
       (select max(version)::int from schemaversion) as schema
     from projects where id = $1`,
    [project],
  );
  const [found] = rows;
  if (found === undefined) throw new Error(`there is no project ${project}`);
  if (found.purged) throw new Error(`project ${project} is being purged, and no longer whole: take it from a backup`);
  return {
    project,
    revision: found.revision,
    release: VERSION,
    schema: found.schema,
    exportTime: found.time.toISOString(),
    tables: await columnsOf(client),
    users: (await client.query<{ users: string[] }>(USERS, [project])).rows[0]?.users ?? [],
  };
};

/** The columns of the project's tables, as the database has them. */
export const columnsOf = async (client: Client): Promise<Record<string, string[]>> => {
  const { rows } = await client.query<{ name: string; columns: string[] }>(
    `select relname as name, array_agg(attname::text order by attnum) as columns
     from pg_class join pg_attribute on attrelid = pg_class.oid
     where relnamespace = 'jeex'::regnamespace and relname = any($1) and attnum > 0 and not attisdropped
       and attgenerated = ''
     group by relname`,
    [PROJECT_TABLES.map(({ name }) => name)],
  );
  return Object.fromEntries(rows.map(({ name, columns }) => [name, columns]));
};

const readTable = (client: Client, { name, project: column, order, fetch }: ProjectTable, project: string) =>
  readCursor<{ json: string }>(
    client,
    `select row_to_json(t)::text as json from ${name} t where ${column} = $1 order by ${order}`,
    [project],
    fetch,
  );
