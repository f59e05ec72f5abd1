import { createReadStream } from 'node:fs';
import type { Client } from 'pg';
import { createDatabase } from '../db/pool.ts';
import { type KeyRing, loadRing } from '../sealing/ring.ts';
import { checkRing } from '../sealing/secret.ts';
import { type Exported, exportProject } from '../transfer/export.ts';
import { readFile } from '../transfer/file.ts';
import { type Imported, importProject } from '../transfer/import.ts';
import { print, tell, writeOut } from './output.ts';
import { asOwner } from './owner.ts';
import { everyTwoSeconds } from './progress.ts';

/** Import under an id that the database makes. */
const NEW = 'new';

export interface ImportCommandOptions {
  /** Without it, standard input. */
  readonly file: string | undefined;
  /** The project's id to be, or `NEW`; without it the file's own. */
  readonly as: string | undefined;
  readonly json: boolean;
}

/**
 * Writes a whole project to standard output, as one file.
 * @throws Error when there is no such project, or standard output is a terminal
 */
export async function exportToFile({ id }: { id: string }): Promise<void> {
  if (process.stdout.isTTY) throw new Error('a file does not belong on a terminal: add > FILE');
  await asOwner(async ({ client, signal }) => {
    const due = everyTwoSeconds();
    const onProgress = (rows: number, bytes: number) => {
      if (due()) tell(`${rows} rows, ${mebibytes(bytes)} MiB`);
    };
    await writeOut(toldAtEnd(exportProject({ client, project: id, signal, onProgress })), signal);
  });
}

async function* toldAtEnd(lines: AsyncGenerator<string, Exported>): AsyncGenerator<string> {
  const { project, revision, rows, bytes, sha256 } = yield* lines;
  tell(`project ${project} as of revision ${revision}: ${rows} rows, ${mebibytes(bytes)} MiB, SHA-256 ${sha256}`);
}

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);

/**
 * Makes a project of a file: all of it or nothing.
 * @throws BadFile; Error saying what is in the way
 */
export async function importFromFile({ file: path, as, json }: ImportCommandOptions): Promise<void> {
  await asOwner(async ({ config, database, client, signal }) => {
    const ring = loadRing(config.encryptionKeys, database.secrets?.encryption ?? null);
    await checkRingOf(database.migrationUrl, ring);
    const file = await readFile(path === undefined ? process.stdin : createReadStream(path));
    const project = await targetOf(client, as ?? file.header.project);
    const due = everyTwoSeconds();
    const onProgress = (rows: number) => {
      if (due()) tell(`${rows} rows`);
    };
    const made = await importProject({ client, ring, file, project, signal, onProgress });
    print(json ? JSON.stringify(made) : describe(made));
  });
}

/** @throws Error when the ring is not the database's, before a file is read */
const checkRingOf = async (url: string, ring: KeyRing): Promise<void> => {
  const db = await createDatabase({ url, size: 1 });
  try {
    await checkRing(db, ring);
  } finally {
    await db.end();
  }
};

const targetOf = async (client: Client, wanted: string): Promise<string> => {
  if (wanted !== NEW) return wanted;
  const { rows } = await client.query<{ id: string }>('select uuidv7()::text as id');
  return rows[0]?.id ?? '';
};

const describe = ({ project, revision, rows, erasedMembers, purgeTime }: Imported): string =>
  [
    `project ${project} is there, at revision ${revision}: ${rows} rows`,
    ...(erasedMembers > 0 ? [`${erasedMembers} of its members were erased meanwhile, and are none any more`] : []),
    ...(purgeTime === null ? [] : [`it is deleted, as it was: UndeleteProject before ${purgeTime.toISOString()}`]),
  ].join('\n');
