import { z } from 'zod';
import { whatHappened } from './db/errors.ts';
import { createDatabase, type Database, first } from './db/pool.ts';
import { sql, statement } from './db/statement.ts';
import { inTime } from './in-time.ts';
import type { Logger } from './log.ts';
import type { Health } from './rpc/health.ts';

const schemaVersion = statement({
  name: 'readiness.schema_version',
  params: {},
  row: z.object({ version: z.int(), oldest: z.int() }),
  // By way of JSON, since a migrator of an earlier release made the table without the column.
  sql: () => sql.fragment`
select coalesce(max(s.version), 0)::integer as version,
  coalesce(max((to_jsonb(s) ->> 'oldest_release')::integer), 0) as oldest
from schemaversion s`,
});

const INTERVAL_MS = 500;
const TIMEOUT_MS = 1000;
/** How long a question may wait for its answer, over several checks: begun anew each time, it might never get its turn. */
const QUESTION_MS = 3000;

interface ReadinessOptions {
  readonly url: string;
  /** The newest migration this release knows: the schema it needs, or one of a later release that it can still serve. */
  readonly requiredVersion: number;
  readonly health: Health;
  /** Told each time the database has answered. */
  readonly onAnswer?: () => void;
  readonly log: Logger;
}

export interface Readiness {
  /** The connection that is kept for it: for what must not wait for the callers' pool, and is as short. */
  readonly database: Database;
  stop(): Promise<void>;
}

/** Why a release that knows migrations up to one cannot serve a schema; null when it can. */
const unfit = ({ version, oldest }: z.infer<typeof schemaVersion.row>, known: number): string | null => {
  if (version < known) return `the schema is at ${version}, this release needs ${known}`;
  if (oldest <= known) return null;
  return (
    `the schema is at ${version}, and the oldest release that can serve it knows migration ${oldest}; this one knows up ` +
    `to ${known}`
  );
};

/**
 * Keeps health true: asks the database for its schema every half second, on a connection of its own, so that callers who
 * wait for the pool do not make it look down. A database that does not answer within a second is not ready.
 */
export const watchReadiness = async ({
  url,
  requiredVersion,
  health,
  onAnswer,
  log,
}: ReadinessOptions): Promise<Readiness> => {
  const database = await createDatabase({ url, size: 1 });
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  let last: string | null = null;
  let asked: Promise<string | null> | null = null;

  const ask = async (): Promise<string | null> => {
    try {
      const row = first(await database.run(schemaVersion, {}, { signal: AbortSignal.timeout(QUESTION_MS) }));
      onAnswer?.();
      return unfit(row ?? { version: 0, oldest: 0 }, requiredVersion);
    } catch (error) {
      return whatHappened(error);
    } finally {
      asked = null;
    }
  };

  const fault = async (): Promise<string | null> => {
    asked ??= ask();
    return await inTime(asked, TIMEOUT_MS, `the database has not answered within ${TIMEOUT_MS} ms`);
  };

  const check = async () => {
    const found = await fault();
    if (stopped) return;
    health.setReady(found === null);
    if (found !== last) {
      if (found === null) log.info('ready again');
      else log.warn({ reason: found }, 'not ready');
    }
    last = found;
    timer = setTimeout(() => void check(), INTERVAL_MS).unref();
  };

  await check();
  return {
    database,
    stop: async () => {
      stopped = true;
      clearTimeout(timer);
      await database.end();
    },
  };
};
