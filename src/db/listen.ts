import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Logger } from '../log.ts';
import { cut, endWithin, openClient, within } from './connection.ts';
import { whatHappened } from './errors.ts';
import { isPooled } from './pooled.ts';

/** How long PostgreSQL has to let the listener in, and for each answer, in milliseconds. */
const TIMEOUT_MS = 3_000;
/** How often a quiet connection is asked whether it is still there, in milliseconds: a network may vanish without a word. */
const PROBE_MS = 10_000;
/** The longest wait before the next attempt to connect, in milliseconds: of the first, and of any. */
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 10_000;

const NOTIFY = 'select pg_notify($1, payload) from unnest($2::text[]) as payload';

interface ListenOptions {
  /** Direct: a pooler in transaction mode passes no notification on. */
  readonly url: string;
  /** A plain lower-case name. */
  readonly channel: string;
  /** Hears each payload that another session has sent, and must not throw. */
  readonly onPayload: (payload: string) => void;
  /** Hears whether payloads are heard from now on; what was sent in between is lost. Must not throw. */
  readonly onLive: (live: boolean) => void;
  readonly log: Logger;
}

export interface Listener {
  /** Whether payloads are heard, and can be sent, at the moment. */
  readonly live: boolean;
  /**
   * Sends payloads of less than 8000 bytes each to the other listeners, in one statement, on the listener's own connection: it takes
   * none from the callers, and no wait for the disk. One that fails costs the connection, which is made anew.
   * @throws Error when they may not have been sent
   */
  notify(payloads: readonly string[]): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Listens on a connection of its own, which is opened in the background, and again whenever it is lost, with growing random
 * pauses, so that replicas do not come all at once.
 */
export const startListener = ({ url, channel, onPayload, onLive, log }: ListenOptions): Listener => {
  const stopping = new AbortController();
  const { signal } = stopping;
  let session: Client | null = null;
  let complained = false;

  const setSession = (client: Client | null): void => {
    if (session === client) return;
    session = client;
    if (client !== null && complained) log.info('changes of other processes are heard of again');
    if (client !== null) complained = false;
    onLive(client !== null);
  };

  const complain = (error: unknown): void => {
    if (complained || signal.aborted) return;
    complained = true;
    log.warn(
      { reason: whatHappened(error) },
      'changes of other processes are found by polling until they are heard of again',
    );
  };

  /** Listens until the connection ends. @throws Error why there was none, or why it ended */
  const listen = async (): Promise<void> => {
    const client = await openClient(url, 'jeex-persistence listener', within(TIMEOUT_MS));
    const ended = new Promise<never>((_, reject) => {
      client.once('end', () => reject(new Error('the connection was lost')));
    });
    try {
      await Promise.race([begin(client), ended]);
      setSession(client);
      await Promise.race([probe(client, signal), ended]);
    } finally {
      setSession(null);
      await endWithin(client, TIMEOUT_MS);
    }
  };

  const begin = async (client: Client): Promise<void> => {
    if (await isPooled(client)) {
      throw new Error("a pooler stands between: LISTEN_DATABASE_URL is PostgreSQL's own host and port");
    }
    const own = (client as unknown as { processID: number }).processID;
    client.on('notification', ({ processId, payload }) => {
      if (processId !== own && payload) onPayload(payload);
    });
    // A notification is worth nothing after a crash, so none waits until it is on the disk, nor on a standby.
    await client.query(`set synchronous_commit = off; listen ${channel}`);
  };

  const run = async (): Promise<void> => {
    for (let failures = 0; !signal.aborted; failures += 1) {
      const began = performance.now();
      await listen().catch(complain);
      if (performance.now() - began > MAX_RETRY_MS) failures = 0;
      await pause(Math.random() * Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** failures), signal);
    }
  };
  const running = run();

  return {
    get live() {
      return session !== null;
    },
    notify: async (payloads) => {
      const client = session;
      if (client === null) throw new Error('nobody listens at the moment');
      try {
        await client.query({ name: 'notify', text: NOTIFY, values: [channel, payloads] });
      } catch (error) {
        complain(error);
        cut(client);
        throw error;
      }
    },
    stop: async () => {
      stopping.abort();
      await running;
    },
  };
};

/** Asks now and then whether the connection is there, until the signal aborts. @throws Error when it does not answer */
const probe = async (client: Client, signal: AbortSignal): Promise<void> => {
  while (!signal.aborted) {
    await client.query('select');
    await pause(PROBE_MS, signal);
  }
};

/** Waits for some milliseconds, or until the signal aborts. */
const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
  // Rejects when the signal aborts, which ends the loop anyhow.
  await sleep(ms, undefined, { signal, ref: false }).catch(() => {});
};
