import { type Fault, never } from '../fault.ts';

/** More than a session takes to end, in milliseconds. */
const END_MS = 10_000;

/** Sessions of the service; of PgBouncer where there is one. */
const SESSIONS = "select pid, state = 'active' as busy from pg_stat_activity where usename = 'jeex_app' order by pid";

interface Session {
  readonly pid: number;
  readonly busy: boolean;
}

/** Sessions of the service are ended from outside, one after the other, those at work first, as an administrator or a failing disk does. */
export const backendTerminate: Fault = {
  name: 'backend-terminate',
  what: 'a session of the service ended by pg_terminate_backend',
  batch: 10,
  missing: never,
  strike: async ({ cluster, until }, random, times) => {
    let ended = 0;
    const terminate = async (): Promise<boolean> => {
      const sessions = await cluster.ask<Session>(SESSIONS);
      if (sessions.length === 0) return false;
      const busy = sessions.filter((session) => session.busy);
      const { pid } = random.pick(busy.length > 0 ? busy : sessions);
      const [row] = await cluster.ask<{ done: boolean }>('select pg_terminate_backend($1, $2) as done', [pid, END_MS]);
      if (row?.done) ended += 1;
      return ended === times;
    };
    await until(terminate, `${times} sessions are ended`);
    return { times: ended };
  },
};
