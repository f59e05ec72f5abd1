import { type Client, escapeIdentifier } from 'pg';
import { LAST_BASE_BACKUP, MAY_SEE_BASE_BACKUP } from '../db/base-backup.ts';
import { MigrationRefused } from './errors.ts';
import { label } from './files.ts';
import { MIGRATOR_TABLES } from './history.ts';

/** A migration, or its undo, that takes stored data away. */
interface Destructive {
  readonly version: number;
  readonly name: string;
  /** What is lost, as its header says. */
  readonly reason: string;
}

export interface BackupGuard {
  /** Those that are about to run. */
  readonly destructive: readonly Destructive[];
  /** Whether the operator has said so. */
  readonly haveBackup: boolean;
  /** The database is the one that belongs to this process, where nobody runs backups. */
  readonly embedded: boolean;
}

/** When the last base backup ended by the server's own record, or why that is not known. */
type LastBackup = { readonly finishedAt: Date; readonly now: Date } | { readonly unknown: string };

const FRESH_MINUTES = 60;
const MINUTE = 60_000;

/**
 * Insists on a backup before data is taken away: the operator's word, or a base backup that ended within the hour.
 * @param client jeex_owner's, direct
 * @throws MigrationRefused naming what would be lost, when the last backup ended, and both ways on
 */
export async function requireBackup(client: Client, guard: BackupGuard): Promise<void> {
  const { destructive, haveBackup, embedded } = guard;
  if (destructive.length === 0 || haveBackup || embedded || !(await holdsRows(client))) return;
  const last = await lastBackup(client);
  if ('finishedAt' in last && isFresh(last.finishedAt, last.now)) return;
  const lost = destructive.map((one) => `${label(one)} (${one.reason})`).join(', ');
  throw new MigrationRefused([
    {
      code: 'BACKUP',
      what: `data would be lost in ${lost}, and ${describe(last)}`,
      advice:
        `make a base backup and run this again within ${FRESH_MINUTES} minutes of its end; or, with a backup that you know ` +
        'to restore, run `jeex-persistence migrate up --i-have-a-backup` (`migrate down` has it too)',
    },
  ]);
}

/** Whether a backup that ended then is one to rely on now. One from the future says nothing but that a clock is wrong. */
export const isFresh = (finishedAt: Date, now: Date): boolean => {
  const age = now.getTime() - finishedAt.getTime();
  return age >= 0 && age <= FRESH_MINUTES * MINUTE;
};

/** Whether there is anything to lose: a row of anyone's, in whatever tables the schema has now. */
async function holdsRows(client: Client): Promise<boolean> {
  const { rows: tables } = await client.query<{ name: string }>(
    `select relname::text as name from pg_class
     where relnamespace = to_regnamespace('jeex') and relkind in ('r', 'p') and relname <> all ($1)`,
    // A service that has served nobody yet has left its own secret there.
    [[...MIGRATOR_TABLES, 'sealing_keys']],
  );
  if (tables.length === 0) return false;
  const filled = tables.map(({ name }) => `exists (select from jeex.${escapeIdentifier(name)})`);
  const { rows } = await client.query<{ filled: boolean }>(`select ${filled.join(' or ')} as filled`);
  return rows[0]?.filled !== false;
}

/** By PostgreSQL's own record. */
async function lastBackup(client: Client): Promise<LastBackup> {
  const asked = await client.query<{ allowed: boolean; archiving: boolean }>(
    `select ${MAY_SEE_BASE_BACKUP} as allowed,
       current_setting('archive_mode') <> 'off' as archiving`,
  );
  const { allowed = false, archiving = false } = asked.rows[0] ?? {};
  if (!allowed) return FORBIDDEN;
  const { rows } = await client.query<{ finished: Date | null; now: Date }>(
    `select ${LAST_BASE_BACKUP} as finished, clock_timestamp() as now`,
  );
  const { finished = null, now = new Date() } = rows[0] ?? {};
  if (finished !== null) return { finishedAt: finished, now };
  return archiving ? NO_RECORD : NO_ARCHIVE;
}

const FORBIDDEN = {
  unknown:
    'jeex_owner may not see when the last base backup ended (a superuser runs `jeex-persistence bootstrap`, or ' +
    '`grant execute on function pg_ls_waldir to jeex_owner`)',
};
const NO_ARCHIVE = { unknown: 'PostgreSQL keeps no record of base backups while archive_mode is off' };
const NO_RECORD = {
  unknown:
    'PostgreSQL has no record of a base backup (one from a standby, or from before a failover, leaves none here)',
};

const describe = (last: LastBackup): string =>
  'unknown' in last
    ? last.unknown
    : `the last base backup ended at ${last.finishedAt.toISOString()}, which is ${ageOf(last.finishedAt, last.now)}`;

/** An age as people say it. */
const ageOf = (then: Date, now: Date): string => {
  const minutes = Math.floor((now.getTime() - then.getTime()) / MINUTE);
  if (minutes < 0) return "in the future: the server's clock is wrong";
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return hours === 0 ? `${minutes} minutes ago` : `${hours} h ${minutes % 60} min ago`;
  return `${Math.floor(hours / 24)} days ago`;
};
