import type { Client } from 'pg';
import { type Check, type Finding, failed, Skip, warning } from './check.ts';
import { isEmbedded } from './patient.ts';
import { settingsOf } from './settings.ts';

interface Archiver {
  readonly archived: string;
  /** When a segment was archived last; null: never. */
  readonly last: string | null;
  readonly failed_wal: string | null;
  /** Whether the last attempt has failed. */
  readonly failing: boolean;
}

/** An archive_command that copies nothing: none, or one that only says that it has. */
const NOWHERE = /^(\(disabled\)|\s*((\/usr)?\/bin\/)?(true|:)?\s*)$/;
const LOST = 'the write-ahead log is not archived: a lost disk loses all since the last backup';
const FAILING = "see PostgreSQL's log for why archive_command fails; nothing is removed before it succeeds";

const readArchiver = async (client: Client): Promise<Archiver> => {
  const { rows } = await client.query<Archiver>(
    `select archived_count::text as archived, last_archived_time::text as last, last_failed_wal as failed_wal,
       last_failed_time is not null and last_failed_time > coalesce(last_archived_time, '-infinity') as failing
     from pg_stat_archiver`,
  );
  if (rows[0] === undefined) throw new Error('pg_stat_archiver has no row');
  return rows[0];
};

/** What the settings and the archiver's own statistics tell. */
export const judgeArchive = (settings: Readonly<Record<string, string>>, archiver: Archiver): Finding => {
  const { archive_mode: mode = 'off', archive_command: command = '', archive_library: library = '' } = settings;
  const { archived, last, failed_wal, failing } = archiver;
  if (mode === 'off') {
    const mend = 'set archive_mode = on and archive_command in postgresql.conf, then restart';
    return { seen: 'off', faults: [warning(LOST, mend)] };
  }
  if (library === '' && NOWHERE.test(command)) {
    const mend = 'set archive_command in postgresql.conf to what copies a segment elsewhere, then reload';
    return { seen: `on, by "${command}"`, faults: [warning(LOST, mend)] };
  }
  return {
    seen: last === null ? 'on, nothing archived yet' : `on, ${archived} archived, the last at ${last}`,
    faults: failing ? [failed(`archiving fails, last ${failed_wal}: the disk will fill up`, FAILING)] : [],
  };
};

/** The archive of the write-ahead log, which restores to a point in time. */
export const archive: Check = {
  group: 'server',
  name: 'archive',
  run: async (patient) => {
    const client = await patient.app();
    if (isEmbedded(patient)) throw new Skip('the embedded PostgreSQL has none');
    const settings = await settingsOf(client, ['archive_mode', 'archive_command', 'archive_library']);
    return judgeArchive(settings, await readArchiver(client));
  },
};
