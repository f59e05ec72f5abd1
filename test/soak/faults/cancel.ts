import type { Client } from 'pg';
import type { Random } from '../../../src/certify/random.ts';
import { type Fault, never, type World } from '../fault.ts';
import type { Replica } from '../replica.ts';
import { append, newAppend, newScratch, type Scratch } from '../scratch.ts';

/** A query of a call that was cancelled is gone in this time, in milliseconds. */
const GONE_MS = 200;
const UNTIL_GONE = 'until the query is gone, ms';
/** Fewer than a replica lets write at once, and so few that none waits for its lock too long. */
const AT_ONCE = 5;
const HOLD = 'select from jeex.projects where id = any($1) for update';

/** The sessions that wait for one. */
const WAITING = 'select pid from pg_stat_activity where $1 = any(pg_blocking_pids(pid))';
const VERSIONS = 'select count(*)::integer as many from jeex.document_versions where project_id = any($1)';

/**
 * When no more than so many of some sessions wait for one any longer, in milliseconds since 1970; null after ten seconds. PostgreSQL looks
 * by itself, for what else this process does is none of its time.
 */
const GONE = `
create function pg_temp.gone(side integer, pids integer[], remaining integer) returns double precision
language plpgsql as $$
declare
  began timestamptz := clock_timestamp();
begin
  while (select count(*) from unnest(pids) as p where side = any(pg_blocking_pids(p))) > remaining loop
    if clock_timestamp() > began + interval '10 seconds' then
      return null;
    end if;
    perform pg_sleep(0.001);
  end loop;
  return extract(epoch from clock_timestamp()) * 1000;
end $$`;

const now = (): number => performance.timeOrigin + performance.now();

/** An append that can be left. */
interface Sent {
  readonly ended: Promise<void>;
  /** Whether it has not ended by itself, as it does when it has waited for a lock too long. */
  readonly waits: boolean;
  leave(): void;
}

const send = ({ clients }: Replica, scratch: Scratch): Sent => {
  const leaving = new AbortController();
  let waits = true;
  const over = () => {
    waits = false;
  };
  return {
    ended: append(clients, scratch, newAppend(scratch), leaving.signal).then(over, over),
    get waits() {
      return waits;
    },
    leave: () => leaving.abort(),
  };
};

interface Sides {
  /** Holds the rows. */
  readonly side: Client;
  readonly sidePid: number;
  readonly looker: Client;
}

/** Lets clients leave one after the other. @returns how long each query was still there, in milliseconds */
const leaveAll = async (
  { replicas, until }: World,
  { side, sidePid, looker }: Sides,
  { scratches, random }: { scratches: readonly Scratch[]; random: Random },
): Promise<number[]> => {
  await side.query('begin');
  await side.query(HOLD, [scratches.map(({ projectId }) => projectId)]);
  const replica = random.pick(replicas);
  const calls = scratches.map((scratch) => send(replica, scratch));
  let pids: readonly number[] = [];
  const allWait = async (): Promise<boolean> => {
    const { rows } = await looker.query<{ pid: number }>(WAITING, [sidePid]);
    pids = rows.map(({ pid }) => pid);
    return pids.length === calls.length;
  };
  await until(allWait, `${calls.length} appends wait in PostgreSQL`);
  const took: number[] = [];
  for (const [place, call] of calls.entries()) {
    const looking = looker.query('select pg_temp.gone($1, $2, $3) as at', [sidePid, pids, calls.length - place - 1]);
    const [began, waited] = [now(), call.waits];
    call.leave();
    const { at } = (await looking).rows[0];
    if (waited) took.push(at === null ? Number.POSITIVE_INFINITY : at - began);
  }
  await side.query('rollback');
  await Promise.all(calls.map(({ ended }) => ended));
  return took;
};

/** Clients leave while their appends wait in PostgreSQL for a row that a side session holds. */
export const cancel: Fault = {
  name: 'cancel',
  what: 'a client that cancels while its query runs',
  batch: 50,
  limits: { [UNTIL_GONE]: GONE_MS },
  missing: never,
  strike: async (world, random, times) => {
    const { cluster } = world;
    // Each has a project of its own: of those that wait for one row only the first waits for who holds it.
    const scratches = await Promise.all(Array.from({ length: Math.min(times, AT_ONCE) }, () => newScratch(world)));
    const [side, looker] = [await cluster.openSession(), await cluster.openSession()];
    const took: number[] = [];
    try {
      await looker.query(GONE);
      const sides = { side, sidePid: (await side.query('select pg_backend_pid() as pid')).rows[0].pid, looker };
      while (took.length < times) took.push(...(await leaveAll(world, sides, { scratches, random })));
    } finally {
      await Promise.all([side.end(), looker.end()]);
    }
    return { times: took.length, figures: { [UNTIL_GONE]: took }, broken: await written(world, scratches) };
  },
};

/** Appends that took effect although their clients had gone. */
const written = async ({ cluster }: World, scratches: readonly Scratch[]): Promise<string[]> => {
  const [row] = await cluster.ask<{ many: number }>(VERSIONS, [scratches.map(({ projectId }) => projectId)]);
  return row?.many === 0 ? [] : [`${row?.many} appends were applied after their clients had left`];
};
