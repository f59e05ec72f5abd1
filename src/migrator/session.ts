import type { Client } from 'pg';
import { waitForLock } from '../db/advisory.ts';
import { endWithin, openClient } from '../db/connection.ts';
import { isPooled } from '../db/pooled.ts';
import { refuse } from './errors.ts';

export interface Log {
  info(message: string): void;
}

export interface SessionOptions {
  readonly log?: Log | undefined;
  /** How long to wait for another migrator to end, in milliseconds. */
  readonly patienceMs?: number | undefined;
}

/** Of the goodbye to a server, in milliseconds. */
const END_MS = 2000;

/**
 * What every script runs under. Limits on statements are left to the runners. The server asks every second whether the
 * migrator is still there, so that what a killed one has begun ends, and its lock is free for the next one.
 */
const SETTINGS = `reset role; set search_path = jeex; set statement_timeout = 0; set lock_timeout = 0;
set client_connection_check_interval = '1s'; set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5;
set tcp_keepalives_count = 3`;

/** Looks at a database on a connection of its own. @throws ConnectFailure that says why there is none to be had */
export async function looking<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = await openClient(url, 'jeex-persistence migrate');
  try {
    return await work(client);
  } finally {
    await endWithin(client, END_MS);
  }
}

/**
 * Works on a database as its only migrator: on one direct connection, whose session holds the lock.
 * @throws MigrationRefused when a pooler stands between; Error naming the holder when the lock stays taken
 */
export async function alone<T>(url: string, options: SessionOptions, work: (client: Client) => Promise<T>): Promise<T> {
  return await looking(url, async (client) => {
    if (await isPooled(client)) {
      refuse([
        {
          code: 'POOLED',
          what: `${new URL(url).host} is a pooler: the migrator's lock lives in its session, which a pooler shares with others`,
          advice: 'set MIGRATION_DATABASE_URL to PostgreSQL itself, usually port 5432 instead of 6432',
        },
      ]);
    }
    await waitForLock(client, 'migrate', options);
    await settle(client);
    return await work(client);
  });
}

/** Undoes what a script has set for the session, so that each one starts from the same. */
export async function settle(client: Client): Promise<void> {
  await client.query(SETTINGS);
}
