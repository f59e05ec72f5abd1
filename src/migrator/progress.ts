import { PROGRESS } from './history.ts';
import type { Step } from './step.ts';

/** What a step that takes more than one transaction has done so far; null: it has not begun. */
export async function readProgress<T>({ client, migration, action }: Step): Promise<T | null> {
  const { rows } = await client.query<{ state: T }>(
    `select state from ${PROGRESS} where version = $1 and action = $2`,
    [migration.version, action],
  );
  return rows[0]?.state ?? null;
}

export async function writeProgress({ client, migration, action }: Step, state: object): Promise<void> {
  await client.query(
    `insert into ${PROGRESS} (version, action, state, update_time) values ($1, $2, $3, clock_timestamp())
     on conflict (version, action) do update set state = excluded.state, update_time = excluded.update_time`,
    [migration.version, action, JSON.stringify(state)],
  );
}

export async function clearProgress({ client, migration, action }: Step): Promise<void> {
  await client.query(`delete from ${PROGRESS} where version = $1 and action = $2`, [migration.version, action]);
}
