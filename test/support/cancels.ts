import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { z } from 'zod';
import { createDatabase, type Database } from '../../src/db/pool.ts';
import { sql, statement } from '../../src/db/statement.ts';
import { Refusal } from '../../src/refusal.ts';
import { connectAs, type TestDatabase } from './postgres.ts';
import { until } from './until.ts';

/** What is cancelled in all; more by hand: CANCELS=1000. */
export const CANCELS = Number(process.env.CANCELS ?? 200);
/** More than a statement that was cancelled may go on for, in milliseconds; the promise is 200, and the figure printed. */
const GONE_MS = 2_000;
const POOL_SIZE = 8;
/** Twice what the pool has, so that some are cancelled while they wait. */
const CALLERS = 16;
/** How long calls last at most before they are cancelled, in milliseconds: before they are sent, under way, and after. */
const MOMENT_MS = 6;

const answer = statement({
  name: 'cancels.answer',
  params: {},
  row: z.object({ one: z.number() }),
  sql: () => sql.fragment`select 1 as one`,
});
const nap = statement({
  name: 'cancels.nap',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`select 1 as one from (select pg_sleep(30)) as nap`,
});
const note = statement({
  name: 'cancels.note',
  params: { id: 'uuid' },
  row: z.object({}),
  sql: (p) => sql.fragment`
with noted as (insert into notes values (${p.id}) returning id) select 1 as one from (select pg_sleep(0.002)) as nap, noted`,
});

const ended = (): Refusal => new Refusal('SHUTTING_DOWN', 'cancelled by the test');

/** Runs work so often, by callers at the same time. */
export const inTurns = async (times: number, callers: number, work: (turn: number) => Promise<void>): Promise<void> => {
  let turn = 0;
  const caller = async () => {
    while (turn < times) await work(turn++);
  };
  await Promise.all(Array.from({ length: callers }, caller));
};

const aMoment = (): Promise<void> => sleep(Math.random() * MOMENT_MS);

/** Waits until nothing that jeex_app has sent runs any more. @returns how long that took, in milliseconds */
export const untilGone = async (admin: Client, what: string): Promise<number> => {
  const began = performance.now();
  const isGone = async () => {
    const { rows } = await admin.query(
      `select count(*)::int as n from pg_stat_activity
       where datname = current_database() and usename = 'jeex_app' and state = 'active' and query like $1`,
      [`%${what}%`],
    );
    return rows[0].n === 0;
  };
  await until(isGone, `nothing like ${what} runs`, GONE_MS);
  return performance.now() - began;
};

/** Cancels statements a moment after they were asked for, and others beside them, which nobody cancels, are answered. */
const cancelNaps = async (pool: Database): Promise<void> =>
  await inTurns(CANCELS, CALLERS, async (turn) => {
    const call = new AbortController();
    const napping = assert.rejects(pool.run(nap, {}, call), { reason: 'SHUTTING_DOWN', outcome: 'not_applied' });
    await aMoment();
    call.abort(ended());
    await napping;
    if (turn % 4 === 0) assert.deepEqual(await pool.run(answer, {}), [{ one: 1 }]);
  });

/** What callers were told of their writes. */
interface Told {
  readonly done: string[];
  readonly notApplied: string[];
  readonly unknown: string[];
}

const cancelNotes = async (pool: Database): Promise<Told> => {
  const told: Told = { done: [], notApplied: [], unknown: [] };
  await inTurns(CANCELS, CALLERS, async () => {
    const id = randomUUID();
    const call = new AbortController();
    const writing = pool.run(note, { id }, call).then(
      () => told.done,
      (error: Refusal) => (error.outcome === 'unknown' ? told.unknown : told.notApplied),
    );
    await aMoment();
    call.abort(ended());
    (await writing).push(id);
  });
  return told;
};

/** Cancels so many reads and as many writes in the middle, through whatever stands before the database. */
export const cancelInTheMiddle = async (db: TestDatabase, tell: (figures: string) => void): Promise<void> => {
  const admin = await connectAs(db.adminUrl);
  await admin.query('create table notes (id uuid primary key); grant select, insert on notes to jeex_app');
  const pool = await createDatabase({ url: db.appUrl, size: POOL_SIZE });
  try {
    await cancelNaps(pool);
    const gone = await untilGone(admin, 'pg_sleep(30)');
    const told = await cancelNotes(pool);
    await untilGone(admin, 'pg_sleep(0.002)');

    const { rows } = await admin.query<{ id: string }>('select id from notes');
    const noted = new Set(rows.map(({ id }) => id));
    assert.deepEqual(
      told.done.filter((id) => !noted.has(id)),
      [],
      'what was acknowledged is there',
    );
    assert.deepEqual(
      told.notApplied.filter((id) => noted.has(id)),
      [],
      'and what was told not to be is not',
    );
    const { acquired, waiting, connects } = pool.state();
    assert.deepEqual({ acquired, waiting }, { acquired: 0, waiting: 0 }, 'no slot is leaked');
    const all = Array.from({ length: POOL_SIZE }, () => pool.run(answer, {}));
    assert.equal((await Promise.all(all)).length, POOL_SIZE, 'every slot serves');
    tell(
      `${2 * CANCELS} cancelled, gone after ${gone.toFixed(0)} ms; writes: ${told.done.length} done, ` +
        `${told.notApplied.length} not applied, ${told.unknown.length} unknown; ${connects} connections made`,
    );
  } finally {
    await pool.end();
  }
};
