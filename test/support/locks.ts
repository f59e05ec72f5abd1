import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { TestDatabase } from './postgres.ts';
import { connectAs } from './postgres.ts';

/**
 * Waits until this many backends (at least; with 0: none) of the database wait for a lock; fails after 5 s.
 * @param admin a superuser's connection: nobody else sees what others wait for
 */
export const untilBlocked = async (admin: Client, many: number): Promise<void> => {
  for (const end = Date.now() + 5000; Date.now() < end; await sleep(2)) {
    const { rows } = await admin.query(
      `select count(*)::int as n from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
    if (many === 0 ? rows[0].n === 0 : rows[0].n >= many) return;
  }
  throw new Error(`${many} calls should have waited for a lock`);
};

/** Holds a project's row on a connection of its own, until the answer is called. */
export const lockProject = async (db: TestDatabase, projectId: string): Promise<() => Promise<unknown>> => {
  const holder = await connectAs(db.adminUrl);
  await holder.query('begin');
  await holder.query('select from projects where id = $1 for update', [projectId]);
  return () => holder.query('rollback');
};

/**
 * Starts calls while another connection holds a project's row, and lets go when `many` of them wait there: so they meet,
 * whatever the machine does.
 * @param admin a superuser's connection: nobody else sees what others wait for
 */
export const meeting = async <T>(
  admin: Client,
  projectId: string,
  many: number,
  start: () => readonly Promise<T>[],
): Promise<T[]> => {
  await admin.query('begin');
  try {
    await admin.query('select from jeex.projects where id = $1 for update', [projectId]);
    const calls = Promise.all(start());
    calls.catch(() => {});
    await untilBlocked(admin, many);
    await admin.query('commit');
    return await calls;
  } catch (error) {
    await admin.query('rollback');
    throw error;
  }
};
