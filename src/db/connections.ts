import type { Client } from 'pg';
import { endWithin } from './connection.ts';

/** Connections that are kept while they are used, with whatever belongs to each. */
export interface Connections<T> {
  readonly acquired: number;
  readonly idle: number;
  /** The one that was given back last; undefined when none is idle. */
  take(): T | undefined;
  /** Takes in a new one, which is in use. */
  add(connection: T, client: Client): void;
  /** Takes one back that is as good as before. */
  give(connection: T): void;
  /** Ends one that is in use and not to be used again. */
  drop(connection: T): Promise<void>;
  /** Ends all, when no statement runs any more. */
  end(): Promise<void>;
}

/** How long, in milliseconds, the goodbye to a connection may take: one that is left open keeps the process from ending. */
const END_MS = 3_000;
/** After so long, in milliseconds, a connection is made anew: a failover moves names, and a server process grows. */
const MAX_AGE_MS = 30 * 60_000;

interface Kept {
  readonly client: Client;
  readonly until: number;
  idleSince: number;
}

/**
 * Keeps connections in a stack: of few callers the last connection is used again and again, whose server process has at hand
 * what their statements need; Slonik's own queue goes round, which costs a third more of PostgreSQL's time. Those that are
 * not needed become idle for good, and are ended.
 * @param idleMs after how long an idle one is ended, in milliseconds
 */
export const createConnections = <T extends object>(idleMs: number): Connections<T> => {
  const all = new Map<T, Kept>();
  /** The one that has been idle for longest first. */
  const idle: T[] = [];
  let timer: NodeJS.Timeout | undefined;

  const forget = (connection: T): void => {
    all.delete(connection);
    const place = idle.indexOf(connection);
    if (place >= 0) idle.splice(place, 1);
  };

  const drop = async (connection: T): Promise<void> => {
    const kept = all.get(connection);
    forget(connection);
    // One whose other side has gone is ended all the same.
    if (kept) await endWithin(kept.client, END_MS).catch(() => {});
  };

  const dropIdle = (): void => {
    timer = undefined;
    const now = performance.now();
    for (const connection of [...idle]) {
      if (now - (all.get(connection)?.idleSince ?? now) < idleMs) break;
      void drop(connection);
    }
    watchIdle();
  };

  const watchIdle = (): void => {
    if (timer || idle.length === 0) return;
    const since = all.get(idle[0] as T)?.idleSince ?? performance.now();
    timer = setTimeout(dropIdle, Math.max(1, since + idleMs - performance.now())).unref();
  };

  return {
    get acquired() {
      return all.size - idle.length;
    },
    get idle() {
      return idle.length;
    },
    take: () => idle.pop(),
    add: (connection, client) => {
      const until = performance.now() + MAX_AGE_MS * (0.9 + Math.random() * 0.2);
      all.set(connection, { client, until, idleSince: 0 });
      client.on('end', () => forget(connection));
    },
    give: (connection) => {
      const kept = all.get(connection);
      // It ended with the statement.
      if (!kept) return;
      kept.idleSince = performance.now();
      if (kept.idleSince > kept.until) void drop(connection);
      else idle.push(connection);
      watchIdle();
    },
    drop,
    end: async () => {
      clearTimeout(timer);
      await Promise.all([...all.keys()].map(drop));
    },
  };
};
