import { type Client, DatabaseError, type QueryResult } from 'pg';
import { cut, endWithin, openClient, within } from '../db/connection.ts';
import { registry } from '../db/statement.ts';
import type { Logger } from '../log.ts';

/** How long a plan is good for: tables grow, indexes come, in milliseconds. */
const KEPT_MS = 3_600_000;
/** How long a statement is left alone that could not be explained, in milliseconds. */
const FAILED_MS = 60_000;
/** How long PostgreSQL may plan one statement, in milliseconds, */
const STATEMENT_MS = 2_000;
/** and wait for a table that a migration holds. */
const LOCK_MS = 500;
/** How long a connection may take to be made, to answer, or to say goodbye, in milliseconds. */
const TIMEOUT_MS = 3_000;

/** Explaining writes nothing anyhow; this way PostgreSQL sees to it. Local, so that a pooler hands none of it on. */
const LIMITS = `
set local transaction_read_only = on;
set local statement_timeout = ${STATEMENT_MS};
set local lock_timeout = ${LOCK_MS};`;

/** How PostgreSQL would run a statement whatever its values are: `$1`, `$2`, … stand in their place. */
export interface GenericPlan {
  /** What pg_stat_statements knows the statement by; null where PostgreSQL computes none. */
  readonly queryId: bigint | null;
  readonly text: string;
}

/** Plans of the service's own statements, and of no other text. */
export interface Plans {
  /** A statement's plan, an hour old at most, by its name in the registry; null when none is to be had. Never rejects. */
  of(name: string): Promise<GenericPlan | null>;
  /** Gives up what it is at. */
  end(): Promise<void>;
}

interface Job {
  readonly name: string;
  readonly text: string;
  readonly resolve: (plan: GenericPlan | null) => void;
}

interface PlansOptions {
  /** As jeex_app, through PgBouncer or not: nobody else may plan what it may run. */
  readonly url: string;
  readonly log: Logger;
}

/**
 * Explains one statement after the other, on a connection of its own that is open only while some wait: a slow statement
 * often means that the callers' pool is short of connections.
 */
export const createPlans = ({ url, log }: PlansOptions): Plans => {
  const kept = new Map<string, { readonly plan: Promise<GenericPlan | null>; until: number }>();
  const jobs: Job[] = [];
  let working: Promise<void> | null = null;
  let client: Client | null = null;
  let ended = false;

  const explainAll = async (): Promise<void> => {
    const opened = await openClient(url, 'jeex-persistence plans', within(TIMEOUT_MS));
    client = opened;
    for (let job = jobs[0]; job !== undefined && !ended; job = jobs[0]) {
      job.resolve(await explained(opened, job, log));
      jobs.shift();
    }
    client = null;
    await endWithin(opened, TIMEOUT_MS);
  };

  const giveUp = (err: unknown): void => {
    log.debug({ err }, 'statements were not explained');
    if (client) cut(client);
    client = null;
    for (const { resolve } of jobs.splice(0)) resolve(null);
  };

  const work = (): void => {
    working ??= explainAll()
      .catch(giveUp)
      .finally(() => {
        working = null;
        if (jobs.length > 0) work();
      });
  };

  const ask = (name: string, text: string): Promise<GenericPlan | null> => {
    const { promise, resolve } = Promise.withResolvers<GenericPlan | null>();
    jobs.push({ name, text, resolve });
    work();
    return promise;
  };

  return {
    of: (name) => {
      const known = kept.get(name);
      if (known && performance.now() < known.until) return known.plan;
      const statement = registry.get(name);
      if (!statement || ended) return Promise.resolve(null);
      const entry = { plan: ask(name, statement.text), until: Number.POSITIVE_INFINITY };
      kept.set(name, entry);
      entry.plan.then((plan) => {
        entry.until = performance.now() + (plan ? KEPT_MS : FAILED_MS);
      });
      return entry.plan;
    },
    end: async () => {
      ended = true;
      if (working) giveUp(new Error('the service stops'));
      await working;
    },
  };
};

/** @throws Error when the connection is lost; what PostgreSQL refuses to explain has no plan */
const explained = async (client: Client, { name, text }: Job, log: Logger): Promise<GenericPlan | null> => {
  try {
    // Without values the text goes by the simple protocol: several statements in one transaction of their own, and a `$1` that
    // nobody binds, which `generic_plan` takes.
    const results: unknown = await client.query(`${LIMITS} explain (generic_plan, verbose) ${text}`);
    return planOf((results as QueryResult<Record<string, string>>[]).at(-1)?.rows ?? []);
  } catch (err) {
    if (!(err instanceof DatabaseError) || err.severity !== 'ERROR') throw err;
    log.debug({ err, statement: name }, 'a statement was not explained');
    return null;
  }
};

const QUERY_ID = /^Query Identifier: (-?\d+)$/;
/** Columns by the hundred, where the plan is the question. */
const OUTPUT = /^\s*Output: /;

/** Only the verbose form tells the statement's id. */
const planOf = (rows: readonly Record<string, string>[]): GenericPlan => {
  const lines = rows.map((row) => row['QUERY PLAN'] ?? '');
  const id = lines.map((line) => QUERY_ID.exec(line)?.[1]).find((found) => found !== undefined);
  return {
    queryId: id === undefined ? null : BigInt(id),
    text: lines.filter((line) => !QUERY_ID.test(line) && !OUTPUT.test(line)).join('\n'),
  };
};
