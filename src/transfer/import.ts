import { randomUUID } from 'node:crypto';
import type { Client } from 'pg';
import { type PayloadKind, payloadOf } from '../sealing/identity.ts';
import type { KeyRing } from '../sealing/ring.ts';
import { columnsOf } from './export.ts';
import { BadFile, type FileRow, type Header, type ProjectFile } from './file.ts';
import { PROJECT_TABLES, type ProjectTable } from './tables.ts';

/** What an import has made. */
export interface Imported {
  readonly project: string;
  /** As the file has it, in decimal; higher when memberships had to end. */
  readonly revision: string;
  readonly rows: number;
  /** Who was a member and is erased now: the membership is ended, as the erasure would have done. */
  readonly erasedMembers: number;
  /** Since when it is deleted, and until when it stays; null when it is not deleted. */
  readonly purgeTime: Date | null;
}

export interface ImportOptions {
  /** The schema's owner. */
  readonly client: Client;
  readonly ring: KeyRing;
  readonly file: ProjectFile;
  /** Its id; of another one than the file's, everything is mapped to it. */
  readonly project: string;
  readonly signal: AbortSignal;
  /** Told after each batch. */
  readonly onProgress: (rows: number) => void;
}

/** What one statement inserts at most; a row that is larger goes alone. */
const BATCH_ROWS = 500;
const BATCH_CHARACTERS = 4 * 1024 * 1024;
const MAX_TOLD = 5;
/** How long an imported project that waits for its purge stays at least. */
const STAYS = '7 days';

/**
 * Makes a project of a file, in one transaction: all of it or nothing.
 * @throws BadFile; Error saying what is in the way: a project of that id, users who are not here, a key that is missing
 */
export const importProject = async (options: ImportOptions): Promise<Imported> => {
  const { client, file, project, signal } = options;
  await client.query('begin');
  try {
    await check(client, file.header, project);
    const rows = await insertAll(options);
    await settle(client, project);
    const erasedMembers = await endErased(client, project);
    const made = await readMade(client, project);
    signal.throwIfAborted();
    await client.query('commit');
    return { project, rows, erasedMembers, ...made };
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
};

const check = async (client: Client, { tables, users }: Header, project: string): Promise<void> => {
  const known = await columnsOf(client);
  for (const [name, columns] of Object.entries(tables)) {
    const unknown = columns.find((column) => !known[name]?.includes(column));
    if (unknown === undefined) continue;
    throw new BadFile(`the file comes from a later schema: ${name}.${unknown} is not known here; migrate up first`);
  }
  if ((await client.query('select from projects where id = $1', [project])).rowCount !== 0) {
    throw new Error(`there is a project ${project} already: purge it first, or import --as another one`);
  }
  const { rows } = await client.query<{ id: string }>(
    'select u as id from unnest($1::uuid[]) as u where not exists (select from users where id = u)',
    [users],
  );
  if (rows.length === 0) return;
  const missing = rows.slice(0, MAX_TOLD).map(({ id }) => id);
  throw new Error(`the file refers to ${rows.length} users who are not here, such as ${missing.join(', ')}`);
};

const insertAll = async (options: ImportOptions): Promise<number> => {
  const { ring, file, project, signal, onProgress } = options;
  const from = file.header.project;
  const insert = createInsert(options);
  let table = '';
  let batch: string[] = [];
  let characters = 0;
  let done = 0;
  const flush = async (): Promise<void> => {
    if (batch.length > 0) await insert(table, batch);
    done += batch.length;
    batch = [];
    characters = 0;
    onProgress(done);
  };
  for await (const row of file.rows) {
    signal.throwIfAborted();
    // Stored replies answer requests about the project of the file, and no other.
    if (row.table === 'requests' && project !== from) continue;
    if (row.table !== table || batch.length >= BATCH_ROWS || characters >= BATCH_CHARACTERS) await flush();
    table = row.table;
    batch.push(row.table === 'execution_payloads' ? sealAnew(ring, row, from, project) : row.json);
    characters += row.json.length;
  }
  await flush();
  return done;
};

interface PayloadRow {
  readonly execution_id: string;
  readonly kind: PayloadKind;
  /** As PostgreSQL writes bytes. */
  readonly data: string;
}

/** Each row has a nonce of its own, and is bound to where it is. */
const sealAnew = (ring: KeyRing, { json }: FileRow, from: string, to: string): string => {
  const row = JSON.parse(json) as PayloadRow;
  const { execution_id: execution, kind, data } = row;
  const plain = ring.open(Buffer.from(data.slice(2), 'hex'), payloadOf(from, execution, kind));
  return JSON.stringify({ ...row, data: `\\x${ring.seal(plain, payloadOf(to, execution, kind)).toString('hex')}` });
};

/** What is written into a row in place of what the file has. */
const placed = ({ name, project }: ProjectTable): string => {
  const id = `jsonb_build_object('${project}', $2::uuid)`;
  // Members are counted again as they come.
  return name === 'projects' ? `${id} || '{"members": 0, "owners": 0}'` : id;
};

/** Takes rows of a table as PostgreSQL reads them from their JSON; columns that the file does not have get their defaults. */
const insertion = (table: ProjectTable, columns: string): string => `
insert into ${table.name} (${columns})
select ${columns}
from jsonb_array_elements($1::jsonb) with ordinality as given (row, place),
  jsonb_populate_record(null::${table.name}, given.row || ${placed(table)})
order by given.place${table.mayExist ? ' on conflict do nothing' : ''}`;

/** The same of changes of another project, $3, whose chain is made anew from $4 on. Answers how it ends. */
const linking = (columns: string): string => `
with recursive given as materialized (
  select place, link
  from jsonb_array_elements($1::jsonb) with ordinality as given (row, place),
    jsonb_populate_record(null::changes, row || jsonb_build_object('project_id', $2::uuid, 'resource_id',
      case (row ->> 'resource_id')::uuid when $3 then $2 else (row ->> 'resource_id')::uuid end)) as link
), linked as (
  select place, link, chain_link($4, link) as chain from given where place = 1
  union all
  select g.place, g.link, chain_link(l.chain, g.link) from linked l join given g on g.place = l.place + 1
), made as (
  insert into changes (${columns})
  select ${columns.replace('"chain"', 'linked.chain')}
  from linked, jsonb_populate_record(null::changes, to_jsonb(linked.link)) order by place
)
select chain from linked order by place desc limit 1`;

type Insert = (table: string, rows: readonly string[]) => Promise<void>;

const createInsert = ({ client, file: { header }, project }: ImportOptions): Insert => {
  const columnsOfTable = (name: string): string => (header.tables[name] ?? []).map((one) => `"${one}"`).join(', ');
  const statements = new Map(PROJECT_TABLES.map((table) => [table.name, insertion(table, columnsOfTable(table.name))]));
  let chain: Buffer = Buffer.alloc(32);
  return async (table, rows) => {
    const json = `[${rows.join(',')}]`;
    if (table !== 'changes' || project === header.project) {
      await client.query(statements.get(table) ?? '', [json, project]);
      return;
    }
    const linked = await client.query<{ chain: Buffer }>(linking(columnsOfTable(table)), [
      json,
      project,
      header.project,
      chain,
    ]);
    chain = linked.rows[0]?.chain ?? chain;
    await client.query('update projects set chain = $2 where id = $1', [project, chain]);
  };
};

/** The project is there again: nothing says that it was purged, and nothing purges it at once. */
const settle = async (client: Client, project: string): Promise<void> => {
  await client.query('delete from purges where project_id = $1', [project]);
  await client.query(
    `update projects set purge_time = now() + interval '${STAYS}' where id = $1 and purge_time < now() + interval '${STAYS}'`,
    [project],
  );
};

/** Whom an erasure looks for in a project: its members, and whom its stored replies are by and about. */
const NAMED = `select user_id from project_members where project_id = $1
  union select user_id from requests where project_id = $1 union select actor_id from requests where project_id = $1`;

/**
 * Does to the project what the erasure of its users has done to the others: ends their memberships, and removes replies by
 * and about them. Until the commit nobody of it is erased. Answers how many were members.
 */
const endErased = async (client: Client, project: string): Promise<number> => {
  await client.query(`select from users where id in (${NAMED}) order by id for share`, [project]);
  await client.query(
    `delete from requests r using users u where r.project_id = $1 and u.id in (r.user_id, r.actor_id)
       and u.delete_time is not null`,
    [project],
  );
  const { rows } = await client.query<{ id: string }>(
    `select u.id from project_members m join users u on u.id = m.user_id
     where m.project_id = $1 and u.delete_time is not null order by u.id`,
    [project],
  );
  const correlationId = randomUUID();
  for (const { id } of rows) {
    await client.query('delete from project_members where project_id = $1 and user_id = $2', [project, id]);
    await client.query(
      `select record_change(row(null, 'project import', $3, null, null, null, null)::call, $1, 'MEMBER_REMOVED', $2)`,
      [project, id, correlationId],
    );
  }
  return rows.length;
};

const readMade = async (client: Client, project: string): Promise<Pick<Imported, 'revision' | 'purgeTime'>> => {
  const { rows } = await client.query<{ revision: string; purgeTime: Date | null }>(
    'select revision::text, purge_time as "purgeTime" from projects where id = $1',
    [project],
  );
  const [made] = rows;
  if (made === undefined) throw new BadFile('the file has no project in it');
  return made;
};
