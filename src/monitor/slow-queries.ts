import { DatabaseError } from 'pg';
import { ZodError, z } from 'zod';
import { registry } from '../db/statement.ts';
import { inTime } from '../in-time.ts';
import { Refusal } from '../refusal.ts';
import { bounded } from '../rpc/time.ts';
import type { GenericPlan, Plans } from './plans.ts';
import type { MonitorSession } from './session.ts';

/** How long the list waits for plans that are not known yet, in milliseconds: all of them take some 100 ms. */
const PLANS_MS = 2_000;

/** A statement that the service sends, and what it has cost since PostgreSQL's statistics were last reset. */
export interface SlowQuery {
  /** PostgreSQL's, and only in this database. */
  readonly queryId: bigint;
  /** In the registry; empty for none of this release's. */
  readonly name: string;
  /** `$1`, `$2`, … in place of values; empty where PostgreSQL has kept a text with values. */
  readonly text: string;
  readonly calls: bigint;
  readonly rows: bigint;
  /** In microseconds, as the other times. */
  readonly total: bigint;
  readonly mean: bigint;
  readonly max: bigint;
  /** Empty where there is none. */
  readonly plan: string;
}

/** Where a list goes on: the total and the id of the query before. */
export type Place = readonly [total: string, queryId: string];

/**
 * The most costly statements, those with the highest total time first.
 * @throws Refusal (DATABASE_UNAVAILABLE) when the monitor does not reach PostgreSQL, and the signal's reason
 */
export type ReadSlowQueries = (after: Place | null, limit: number, signal: AbortSignal) => Promise<SlowQuery[]>;

const row = z.object({
  id: z.bigint(),
  text: z.string(),
  calls: z.bigint(),
  rows: z.bigint(),
  total: z.bigint(),
  mean: z.bigint(),
  max: z.bigint(),
});
type Row = z.infer<typeof row>;

/** What the service's role has sent in this database, and what functions did in turn is part of it. */
const STATEMENTS = `
select found.* from (
  select s.queryid as id, coalesce(s.query, '') as text, s.calls, s.rows,
    round(s.total_exec_time * 1000)::bigint as total, round(s.mean_exec_time * 1000)::bigint as mean,
    round(s.max_exec_time * 1000)::bigint as max
  from stats.pg_stat_statements s
  where s.toplevel and s.userid = (select oid from pg_roles where rolname = 'jeex_app')
    and s.dbid = (select oid from pg_database where datname = current_database())) as found
where $1::bigint is null or (found.total, found.id) < ($1, $2::bigint)
order by found.total desc, found.id desc limit $3`;

/** No right to look, no such view, and a view whose library is not loaded: nobody keeps statistics for us. */
const NO_STATISTICS = new Set(['42501', '42P01', '55000']);

const refused = (error: unknown): unknown => {
  if (error instanceof Refusal || error instanceof ZodError || error instanceof DatabaseError) return error;
  return new Refusal('DATABASE_UNAVAILABLE', 'the monitor does not reach the database; send the call again', {
    cause: error,
  });
};

const readRows = async (session: MonitorSession, after: Place | null, limit: number): Promise<Row[]> => {
  try {
    return await session.rows(STATEMENTS, [after?.[0] ?? null, after?.[1] ?? null, limit], row);
  } catch (error) {
    if (error instanceof DatabaseError && NO_STATISTICS.has(error.code ?? '')) return [];
    throw refused(error);
  }
};

interface Named {
  readonly name: string;
  readonly plan: GenericPlan;
}

/** The plans that are known in time, by the ids of their statements. */
const readPlans = async (plans: Plans): Promise<ReadonlyMap<bigint, Named>> => {
  const byId = new Map<bigint, Named>();
  const look = async (name: string): Promise<void> => {
    const plan = await inTime(plans.of(name), PLANS_MS, null);
    if (plan !== null && plan.queryId !== null) byId.set(plan.queryId, { name, plan });
  };
  await Promise.all([...registry.keys()].map(look));
  return byId;
};

/**
 * Quotes and digits of their own: PostgreSQL puts a parameter in place of every constant, but not in what it begins to count
 * between the preparing of a statement and its run, nor in every utility statement.
 */
const CONSTANT = /'|\$\w*\$|(?<![\w$])\d/;

const slowQueryOf = ({ id, text, ...figures }: Row, named: Named | undefined): SlowQuery => {
  const own = named === undefined ? '' : (registry.get(named.name)?.text ?? '');
  return {
    ...figures,
    queryId: id,
    name: named?.name ?? '',
    text: CONSTANT.test(text) ? own : text,
    plan: named?.plan.text ?? '',
  };
};

/** Reads pg_stat_statements by the monitor's connection: nothing where PostgreSQL keeps none, or tells the monitor none. */
export const slowQueryReader =
  (session: MonitorSession, plans: Plans): ReadSlowQueries =>
  async (after, limit, signal) => {
    const rows = await bounded(readRows(session, after, limit), signal);
    const named = rows.length === 0 ? new Map<bigint, Named>() : await bounded(readPlans(plans), signal);
    return rows.map((each) => slowQueryOf(each, named.get(each.id)));
  };
