import type { Client } from 'pg';
import { cut, openClient, within } from '../db/connection.ts';

/** Of each question, in milliseconds. */
const ANSWER_MS = 2000;
const POLL_MS = 20;

const SESSION = `a.pid || ' (' || coalesce(nullif(a.application_name, ''), a.usename, 'no name') || ')'`;

/** A second connection, which looks at what the migrator's waits for. It helps an operator, and its lack stops nothing. */
export interface Watch extends AsyncDisposable {
  /** Begins to look who is in the way. @returns stops looking, and tells who was seen last; empty: nobody */
  blockers(): () => Promise<string>;
  /** How far an index is that is built concurrently, and whom it waits for; null: none is built. */
  build(): Promise<string | null>;
}

/** @param pid of the migrator's server process; opened at the first question */
export function createWatch(url: string, pid: number): Watch {
  let opening: Promise<Client | null> | undefined;
  const connection = () => {
    opening ??= openClient(url, 'jeex-persistence migrate watch', within(ANSWER_MS)).catch(() => null);
    return opening;
  };
  const ask = async (text: string): Promise<string | null> => {
    const client = await connection();
    // A watch that has lost its connection has nothing to tell.
    const answer = await client?.query<{ told: string | null }>(text, [pid]).catch(() => null);
    return answer?.rows[0]?.told ?? null;
  };
  return {
    blockers() {
      let looking = true;
      let seen = '';
      const done = (async () => {
        while (looking) {
          seen = (await ask(BLOCKERS)) || seen;
          await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        }
      })();
      return async () => {
        looking = false;
        await done;
        return seen;
      };
    },
    build: () => ask(BUILD),
    async [Symbol.asyncDispose]() {
      const client = await opening;
      if (client) cut(client);
    },
  };
}

const BLOCKERS = `select string_agg(distinct ${SESSION}, ', ') as told
from pg_stat_activity a where a.pid = any (pg_blocking_pids($1))`;

const BUILD = `select b.phase || coalesce(', waits for the session ' || ${SESSION}, '') as told
from pg_stat_progress_create_index b left join pg_stat_activity a on a.pid = nullif(b.current_locker_pid, 0)
where b.pid = $1`;
