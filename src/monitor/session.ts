import type { Client } from 'pg';
import { z } from 'zod';
import { cut, endWithin, openClient, within } from '../db/connection.ts';
import { TYPES } from '../db/pg-types.ts';
import { Refusal } from '../refusal.ts';

/** How long PostgreSQL has to let the monitor in, and to answer each question, in milliseconds. */
const TIMEOUT_MS = 2000;
/** Questions that wait for their turn, at most. */
const MAX_WAITING = 32;

/** The monitor's own way to PostgreSQL: one connection, opened when it is needed, and again when it was lost. */
export interface MonitorSession {
  /**
   * Asks one question, after those before it. An int8 and a time, in microseconds since the epoch, are bigints.
   * @param values of `$1`, `$2`, … in this order
   * @throws Refusal (OVERLOADED) when too many questions wait already
   * @throws Error when there is no connection, no answer within 2 s, or one that does not parse; `DatabaseError` of `pg` when
   *   PostgreSQL refuses the statement, which leaves the connection as it is
   */
  rows<T>(text: string, values: readonly unknown[], row: z.ZodType<T>): Promise<T[]>;
  end(): Promise<void>;
}

/**
 * Nothing is opened yet.
 * @param url direct, of a member of `pg_monitor`: any other role is told less
 */
export const createSession = (url: string): MonitorSession => {
  let opened: Promise<Client> | null = null;
  let last: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  let ended = false;

  const forget = (lost: Promise<Client>): void => {
    if (opened === lost) opened = null;
  };

  const open = (): Promise<Client> => {
    if (ended) throw new Error('the monitor has ended');
    const options = { ...within(TIMEOUT_MS), types: TYPES };
    const opening = openClient(url, 'jeex-persistence monitor', options).then((client) =>
      client.once('end', () => forget(opening)),
    );
    return opening;
  };

  const ask = async (text: string, values: readonly unknown[]): Promise<unknown[]> => {
    opened ??= open();
    const using = opened;
    try {
      return (await (await using).query(text, [...values])).rows;
    } catch (error) {
      if (!wasAnswered(error)) {
        forget(using);
        using.then(cut, () => {});
      }
      throw error;
    }
  };

  return {
    rows: async (text, values, row) => {
      if (waiting >= MAX_WAITING) throw new Refusal('OVERLOADED', 'too many questions wait for the monitor');
      waiting += 1;
      const asked = last
        .then(() => ask(text, values))
        .finally(() => {
          waiting -= 1;
        });
      last = asked.catch(() => {});
      return z.array(row).parse(await asked);
    },
    end: async () => {
      ended = true;
      await last;
      const client = await opened?.catch(() => null);
      if (client) await endWithin(client, TIMEOUT_MS);
    },
  };
};

/** Whether PostgreSQL itself refused the statement, and lets the next one be asked. */
const wasAnswered = (error: unknown): boolean =>
  error instanceof Error && 'severity' in error && error.severity === 'ERROR';
