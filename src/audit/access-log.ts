import type { Logger } from 'pino';
import type { AccessConfig } from '../config.ts';
import { Refusal } from '../refusal.ts';
import { accessLine } from './line.ts';
import { createOutlet } from './outlet.ts';
import { createTally } from './tally.ts';
import { openTarget, type Place } from './target.ts';

/** What is on record of a call: ids and names alone, never content. */
export interface AccessRecord {
  /** `package.Service/Method`. */
  readonly rpc: string;
  /** Whether the call changes nothing. */
  readonly read: boolean;
  /** The calling service; empty when it was not authenticated. */
  readonly caller: string;
  /** The user the call was made for; null when it acted for itself, or never said. */
  readonly actor: string | null;
  /** The projects the call was about, or those its answer names. */
  readonly projects: readonly string[];
  /** The users the call was about, or the one its answer names. */
  readonly users: readonly string[];
  /** `OK`, the reason of a refusal, or the code where there is no reason; `OPENED` when a stream sent its first message. */
  readonly result: string;
  readonly correlationId: string;
  /** Whether the call was let in: authenticated, and within its scopes. */
  readonly admitted: boolean;
  /** From the call's headers to its end, in milliseconds. */
  readonly durationMs: number;
}

/** Puts calls on record, beside their work. */
export interface AccessLog {
  /** @throws Refusal OVERLOADED while records cannot be written and calls are to be refused then */
  admit(): void;
  record(record: AccessRecord): void;
  /** Writes what is left. */
  close(): Promise<void>;
}

export interface AccessLogOptions extends Pick<AccessConfig, 'reads' | 'full'> {
  readonly place: Place;
}

const ANSWERED = new Set(['OK', 'OPENED']);

/**
 * Writes a line of JSON for each call; `reads` that were answered may be counted instead, or left out.
 * @param log hears when records cannot be written
 * @throws Error naming ACCESS_LOG, when its place cannot be written to
 */
export const createAccessLog = async (options: AccessLogOptions, log: Logger): Promise<AccessLog> => {
  const { place, reads, full } = options;
  const outlet = createOutlet({ target: await openTarget(place), full, log });
  const tally = createTally(outlet.write);

  return {
    admit: () => {
      if (full !== 'refuse' || !outlet.full) return;
      throw new Refusal('OVERLOADED', 'calls cannot be put on record at the moment, and none is answered without');
    },
    record: (record) => {
      const answeredRead = record.read && ANSWERED.has(record.result);
      if (answeredRead && reads === 'aggregate') tally.add(record);
      else if (answeredRead && reads === 'writes') return;
      // A flood of calls that nobody let in must not take the room of those that were.
      else if (outlet.full && full === 'refuse' && !record.admitted) outlet.refuse();
      else outlet.write(accessLine(record), 1);
    },
    close: async () => {
      tally.flush();
      await outlet.close();
    },
  };
};
