import { PROGRESS } from './history.ts';
import type { Step } from './step.ts';

/**
 * What a step that takes more than one transaction has done so far; null: it has not begun. What another text of the file
 * had done does not count: the rows it went through are not what this one would make of them.
 */
export async function readProgress<T>({ client, migration, action, script, log }: Step): Promise<T | null> {
  const { rows } = await client.query<{ state: T; same: boolean }>(
    `select state -> 'done' as state, state ->> 'checksum' = $3 as same from ${PROGRESS} where version = $1 and action = $2`,
    [migration.version, action, script.checksum],
  );
  const [found] = rows;
  if (found === undefined) return null;
  if (!found.same) log?.info('the file has changed since it was begun: it begins anew');
  return found.same ? found.state : null;
}

export async function writeProgress({ client, migration, action, script }: Step, done: object): Promise<void> {
  await client.query(
    `insert into ${PROGRESS} (version, action, state, update_time) values ($1, $2, $3, clock_timestamp())
     on conflict (version, action) do update set state = excluded.state, update_time = excluded.update_time`,
    [migration.version, action, JSON.stringify({ checksum: script.checksum, done })],
  );
}

export async function clearProgress({ client, migration, action }: Step): Promise<void> {
  await client.query(`delete from ${PROGRESS} where version = $1 and action = $2`, [migration.version, action]);
}
