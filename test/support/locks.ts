import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';

/** Waits until this many backends of the database wait for a lock; fails after 5 s. */
const untilBlocked = async (client: Client, many: number): Promise<void> => {
  for (const end = Date.now() + 5000; Date.now() < end; await sleep(2)) {
    const { rows } = await client.query(
      `select count(*)::int as n from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
    if (rows[0].n >= many) return;
  }
  throw new Error(`${many} calls should have met at a lock`);
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

/** Runs work while another connection holds a project's row. */
export const whileLocked = async <T>(admin: Client, projectId: string, work: () => Promise<T>): Promise<T> => {
  await admin.query('begin');
  try {
    await admin.query('select from jeex.projects where id = $1 for update', [projectId]);
    return await work();
  } finally {
    await admin.query('rollback');
  }
};
