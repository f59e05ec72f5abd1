import type { Logger } from '../log.ts';
import { ConnectFailure, isFull } from './connect-failure.ts';

/** Closed: whoever needs a connection makes one. Open: nobody does, until the next probe is due. Half open: one probes. */
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

/** Attempts that failed, with no answer between them. */
const OPENS_AFTER = 3;
/** Until the first probe, in milliseconds; before each later one twice as long. */
const FIRST_PAUSE_MS = 100;
/** Full service is promised within 2 s of the server's accepting connections. */
const LONGEST_PAUSE_MS = 500;

/** Between half of the time and all of it, so that replicas do not probe together. */
const jittered = (ms: number): number => ms * (0.5 + Math.random() / 2);

/**
 * Opens after three attempts to connect in a row have failed, and closes with the first answer. A server that is full is
 * there: that fails the one who asked, and counts for nothing here, as do statements, slow ones or failed ones.
 * @param now the time, in milliseconds since any moment
 */
export const createBreaker = (log: Pick<Logger, 'info' | 'warn'>, now = () => performance.now()): Breaker => {
  let failures = 0;
  /** What the last attempt of an open circuit failed with; null: closed. */
  let last: ConnectFailure | null = null;
  let pauseMs = FIRST_PAUSE_MS;
  let probeAt = 0;
  let probing = false;

  const pause = () => {
    probeAt = now() + jittered(pauseMs);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  };

  const reached = () => {
    failures = 0;
    if (last === null) return;
    last = null;
    log.info('the database is reached again');
  };

  const missed = (failure: ConnectFailure) => {
    failures += 1;
    if (failures < OPENS_AFTER) return;
    const opens = last === null;
    last = failure;
    if (!opens) return;
    pauseMs = FIRST_PAUSE_MS;
    pause();
    log.warn({ reason: failure.message }, 'the database is not reached: calls that need a connection fail at once');
  };

  /** Lets nobody pass an open circuit but a probe, whose turn has come. */
  const enter = (): boolean => {
    if (last === null) return false;
    if (probing || now() < probeAt) throw new CircuitOpen(last);
    pause();
    return true;
  };

  return {
    get state() {
      if (last === null) return 'closed';
      return probing ? 'half_open' : 'open';
    },
    attempt: async (connect) => {
      const probes = enter();
      probing ||= probes;
      try {
        return await connect();
      } catch (error) {
        if (error instanceof ConnectFailure) {
          if (isFull(error)) reached();
          else missed(error);
        }
        throw error;
      } finally {
        if (probes) probing = false;
      }
    },
    reached,
    missed,
  };
};
