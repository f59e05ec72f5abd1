import { setTimeout as sleep } from 'node:timers/promises';
import type { RetentionConfig } from './config.ts';
import { type Database, first } from './db/pool.ts';
import { indexHeads } from './documents/sql.ts';
import { forgetReplies, purgeDue, retain, sweep } from './executions/sql.ts';
import type { Logger } from './log.ts';
import { Refusal } from './refusal.ts';
import { bounded } from './rpc/time.ts';

/** How often each chore looks for work, in milliseconds: half of the 10 s within which a lost lease is noticed. */
const INTERVAL_MS = 5_000;
/** Rows of one kind that one statement ends, so that it never holds a project for long. */
const BATCH = 200;
/** Heads that one statement indexes: a large one takes tens of milliseconds. */
const HEADS = 20;

/** How long one statement may take with its wait for a connection, in milliseconds: more than PostgreSQL gives it. */
const PATIENCE_MS = 30_000;

const PASSING: ReadonlySet<string> = new Set(['DATABASE_UNAVAILABLE', 'OVERLOADED']);

interface SweeperOptions {
  readonly db: Database;
  /** Hears of a project in which something was ended. */
  readonly changed: (project: string) => void;
  readonly log: Logger;
  readonly retention: RetentionConfig;
  readonly intervalMs?: number;
}

export interface Sweeper {
  /** Ends the loops; a statement that runs is cancelled, and what it did rolled back. */
  stop(): Promise<void>;
}

/** Does a bounded part of some work and answers how much that was: 0 when there is nothing to do. */
type Chore = (options: SweeperOptions, signal: AbortSignal) => Promise<number>;

const CHORES: Readonly<Record<string, Chore>> = {
  'end what is due': async ({ db, changed, log }, signal) => {
    const row = first(await db.run(sweep, { most: BATCH }, { signal }));
    if (row?.failure) log.warn({ reason: row.failure }, 'a project was left for the next sweep');
    if (row?.project_id) changed(row.project_id);
    return row?.done ?? 0;
  },
  'index heads': async ({ db }, signal) => first(await db.run(indexHeads, { most: HEADS }, { signal }))?.indexed ?? 0,
  'purge projects': async ({ db }, signal) => first(await db.run(purgeDue, {}, { signal }))?.done ?? 0,
  'remove what is kept no longer': async ({ db, retention, log }, signal) => {
    const { payloadDays: payload_days, exportDays: export_days, changeDays: change_days } = retention;
    const row = first(await db.run(retain, { payload_days, export_days, change_days, most: BATCH }, { signal }));
    if (row?.failure) log.warn({ reason: row.failure }, 'a project was left for the next pass of the retention');
    return row?.again ? 1 : 0;
  },
  'forget replies': async ({ db }, signal) =>
    first(await db.run(forgetReplies, { most: BATCH }, { signal }))?.done ?? 0,
};

/**
 * Does, beside the calls, what no call does: ends runs whose lease ran out or that nobody starts, returns exports, indexes
 * heads for the search, purges projects whose time has come, removes what is kept no longer, forgets old replies. Every replica runs one: the database
 * gives each piece of work to one of them. Each chore has a loop of its own, so that none waits for another; a failure is
 * logged, and tried again at the next tick.
 */
export const startSweeper = (options: SweeperOptions): Sweeper => {
  const stopping = new AbortController();
  const loops = Object.entries(CHORES).map(([name, chore]) => repeat(name, chore, options, stopping.signal));
  return {
    stop: async () => {
      stopping.abort();
      await Promise.all(loops);
    },
  };
};

/** Runs a chore until it finds nothing to do, again at every tick, until the signal aborts. */
const repeat = async (name: string, chore: Chore, options: SweeperOptions, signal: AbortSignal): Promise<void> => {
  while (!signal.aborted) {
    try {
      // Whoever waits in the pool's queue hears of no signal, so the wait itself ends.
      const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
      if ((await bounded(chore(options, patience), patience)) > 0) continue;
    } catch (err) {
      // That the database is away, or busy, is told elsewhere, and soon over.
      const level = err instanceof Refusal && PASSING.has(err.reason) ? 'warn' : 'error';
      if (!signal.aborted) options.log[level]({ err, chore: name }, 'a chore of the sweeper failed');
    }
    // Rejects when the signal aborts, which ends the loop anyhow.
    await sleep(options.intervalMs ?? INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {});
  }
};
