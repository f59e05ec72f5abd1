import type { Client } from 'pg';
import { holdsLock, waitForLock } from '../db/advisory.ts';
import { type Backend, cancel } from '../db/cancel.ts';
import { endWithin, openClient } from '../db/connection.ts';
import { isPooled } from '../db/pooled.ts';
import { refuse } from './errors.ts';
import { createWatch, type Watch } from './watch.ts';

export interface Log {
  info(message: string): void;
}

export interface SessionOptions {
  readonly log?: Log | undefined;
  /** How long to wait for another migrator to end, in milliseconds. */
  readonly patienceMs?: number | undefined;
  /** Stops what is under way: the statement is cancelled, and its transaction rolled back. */
  readonly signal?: AbortSignal | undefined;
}

const NAME = 'jeex-persistence migrate';
/** Of the goodbye to a server, in milliseconds. */
const END_MS = 2000;
/** How often a statement is cancelled that has only begun after the last time, in milliseconds. */
const CANCEL_AGAIN_MS = 500;

/**
 * What every script runs under, whatever the one before it, the role or the database has set. The server asks every second
 * whether the migrator is still there, so that what a killed one has begun ends, and its lock is free for the next one.
 */
const SETTINGS = `reset role; reset all; discard temp;
set search_path = jeex; set lock_timeout = '5s'; set statement_timeout = 0; set transaction_timeout = 0;
set idle_in_transaction_session_timeout = 0; set idle_session_timeout = 0; set default_transaction_read_only = off;
set datestyle = 'ISO'; set extra_float_digits = 1; set client_connection_check_interval = '1s';
set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3`;

/** Looks at a database on a connection of its own. @throws ConnectFailure that says why there is none to be had */
export async function looking<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = await openClient(url, NAME);
  try {
    return await work(client);
  } finally {
    await endWithin(client, END_MS);
  }
}

/**
 * Works on a database as its only migrator: on one direct connection, whose session holds the lock.
 * @throws MigrationRefused when a pooler stands between; Error naming the holder when the lock stays taken; the signal's
 *   reason when it stopped the work
 */
export async function alone<T>(
  url: string,
  options: SessionOptions,
  work: (client: Client, watch: Watch) => Promise<T>,
): Promise<T> {
  const { log, signal } = options;
  return await looking(url, async (client) => {
    client.on('notice', ({ severity, message }) => severity === 'WARNING' && log?.info(`warning: ${message}`));
    await using watch = createWatch(url, (client as unknown as Backend).processID);
    return await cancellable(client, signal, async () => {
      if (await isPooled(client)) refuse([pooled(url)]);
      await waitForLock(client, 'migrate', options);
      await settle(client);
      return await work(client, watch);
    });
  });
}

const pooled = (url: string) => ({
  code: 'POOLED' as const,
  what: `${new URL(url).host} is a pooler: the migrator's lock lives in its session, which a pooler shares with others`,
  advice: 'set MIGRATION_DATABASE_URL to PostgreSQL itself, usually port 5432 instead of 6432',
});

/** Undoes what a script has set for the session, so that each one starts from the same. @throws Error without the lock */
export async function settle(client: Client): Promise<void> {
  await client.query(SETTINGS);
  if (!(await holdsLock(client, 'migrate'))) throw new Error("a script has let go of the migrator's lock");
}

/** Cancels what the connection runs once the signal aborts, again and again until the work has ended. */
async function cancellable<T>(client: Client, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  let again: NodeJS.Timeout | undefined;
  const stop = () => {
    const cancelNow = () => void cancel(client as unknown as Backend);
    cancelNow();
    again = setInterval(cancelNow, CANCEL_AGAIN_MS);
  };
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await work();
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
    clearInterval(again);
  }
}
