import { inTime } from '../in-time.ts';
import type { Logger } from '../log.ts';
import { ConnectFailure, isFull } from './connect-failure.ts';

/** Closed: whoever needs a connection makes one. Open: nobody does, until the next probe is due. Half open: one probes, or has
 * connected and not been answered yet. */
export type BreakerState = 'closed' | 'open' | 'half_open';

/** Keeps a process from asking again and again for connections that are not to be had. */
export interface Breaker {
  readonly state: BreakerState;
  /**
   * Makes a connection, unless none is to be had at the moment.
   * @throws CircuitOpen without having tried; what `connect` throws
   */
  attempt<T>(connect: () => Promise<T>): Promise<T>;
  /** The database has answered somebody. */
  reached(): void;
  /** A pooler, which lets everybody in, has said that it does not reach the database. */
  missed(failure: ConnectFailure): void;
}

/** Nobody has tried to connect: the last who did could not, a moment ago. */
export class CircuitOpen extends ConnectFailure {
  constructor(last: ConnectFailure) {
    super(`no connection is tried for a moment: ${last.message}`, last);
    this.name = 'CircuitOpen';
  }
}

/** An attempt that tells whether others are worth while. */
interface Probe {
  readonly began: number;
  readonly over: Promise<void>;
}

/** Attempts that failed, with no answer between them. */
const OPENS_AFTER = 3;
/** Until the first probe, in milliseconds; before each later one twice as long. */
const FIRST_PAUSE_MS = 100;
/** Full service is promised within 2 s of the server's accepting connections. */
const LONGEST_PAUSE_MS = 250;
/** How long others wait for a probe, in milliseconds from its beginning. */
const PROBE_PATIENCE_MS = 250;

/** Between half of the time and all of it, so that replicas do not probe together. */
const jittered = (ms: number): number => ms * (0.5 + Math.random() / 2);

/**
 * Opens after three attempts to connect in a row have failed, closes with the first answer, and lets everybody connect from the
 * first probe that does: the next failure, such as a pooler's, which lets everybody in, opens it again. A server that is full
 * is there: that fails the one who asked, and counts for nothing here, as do statements, slow ones or failed ones.
 * @param now the time, in milliseconds since any moment
 */
export const createBreaker = (log: Pick<Logger, 'info' | 'warn'>, now = () => performance.now()): Breaker => {
  let failures = 0;
  /** Whether the database was last heard to be away. */
  let away = false;
  /** What nobody connects for; null: everybody does. */
  let last: ConnectFailure | null = null;
  let pauseMs = FIRST_PAUSE_MS;
  let probeAt = 0;
  let probe: Probe | null = null;

  const pause = () => {
    probeAt = now() + jittered(pauseMs);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  };

  const reached = () => {
    failures = 0;
    last = null;
    if (!away) return;
    away = false;
    pauseMs = FIRST_PAUSE_MS;
    log.info('the database is reached again');
  };

  const missed = (failure: ConnectFailure) => {
    failures += 1;
    if (failures < OPENS_AFTER) return;
    if (last === null) pause();
    last = failure;
    if (away) return;
    away = true;
    log.warn({ reason: failure.message }, 'the database is not reached: calls that need a connection fail at once');
  };

  /** Waits for a probe that has just begun: who fails at once and comes back at once keeps the process from ending it. */
  const awaitProbe = async ({ began, over }: Probe): Promise<void> => {
    const patience = began + PROBE_PATIENCE_MS - now();
    if (patience > 0) await inTime(over, patience, undefined);
  };

  /** Lets nobody pass an open circuit but a probe, whose turn has come. @throws CircuitOpen */
  const enter = (): boolean => {
    if (last === null) return false;
    if (probe !== null || now() < probeAt) throw new CircuitOpen(last);
    pause();
    return true;
  };

  const letIn = () => {
    last = null;
    failures = OPENS_AFTER - 1;
  };

  return {
    get state() {
      if (!away) return 'closed';
      return probe !== null || last === null ? 'half_open' : 'open';
    },
    attempt: async (connect) => {
      if (probe) await awaitProbe(probe);
      const probes = enter();
      const over = Promise.withResolvers<void>();
      if (probes) probe = { began: now(), over: over.promise };
      try {
        const connection = await connect();
        if (probes) letIn();
        return connection;
      } catch (error) {
        if (error instanceof ConnectFailure) {
          if (isFull(error)) reached();
          else missed(error);
        }
        throw error;
      } finally {
        if (probes) probe = null;
        over.resolve();
      }
    },
    reached,
    missed,
  };
};
