import type { Client } from 'pg';
import { type Fault, never, type World } from '../fault.ts';
import { append, compare, contentsOf, DOCUMENT, newAppend, newScratch } from '../scratch.ts';
import { insist } from '../waiting.ts';

const PROJECT = 'select from jeex.projects where id = $1 for update';
const HEAD = 'select from jeex.documents where project_id = $1 and document_type = $2 for update';
const BEHIND = 'select count(*)::integer as many from pg_stat_activity where $1 = any(pg_blocking_pids(pid))';
const WAITS = 'select cardinality(pg_blocking_pids($1)) as many';
const DEADLOCKS = 'select deadlocks::integer as many from pg_stat_database where datname = current_database()';

const OWN_PID = 'select pg_backend_pid() as pid';

/** A session of a superuser, and its process. */
interface Named {
  readonly session: Client;
  readonly pid: number;
}

const openNamed = async (opened: AsyncDisposableStack, { cluster }: World): Promise<Named> => {
  const session = await cluster.openSession();
  opened.defer(() => session.end());
  return { session, pid: (await session.query(OWN_PID)).rows[0].pid };
};

/**
 * An append takes the project's row and then the document's. Here a side session holds the document's and wants the project's, behind
 * the append, while a keeper holds that: once the keeper lets go, each of both has what the other one wants. The append is the one that
 * began to wait last, and so the one that PostgreSQL ends.
 */
export const deadlock: Fault = {
  name: 'deadlock',
  what: 'an append ended as the victim of a deadlock',
  batch: 5,
  missing: never,
  strike: async (world, _random, times) => {
    const { clients, signal, until } = world;
    const scratch = await newScratch(world);
    const told = new Map<number, string>();
    const send = async () => {
      const request = newAppend(scratch);
      told.set(await insist(signal, () => append(clients, scratch, request)), request.content);
    };
    await send();
    await using opened = new AsyncDisposableStack();
    const keeper = await openNamed(opened, world);
    const side = await openNamed(opened, world);
    const looker = await openNamed(opened, world);
    const many = async (sql: string, ...values: readonly unknown[]): Promise<number> =>
      (await looker.session.query(sql, [...values])).rows[0].many;
    const before = await many(DEADLOCKS);
    await side.session.query("set deadlock_timeout = '1min'");
    const cross = async () => {
      await until(async () => (await many(BEHIND, keeper.pid)) > 0, 'the append waits for the project');
      const wanted = side.session.query(PROJECT, [scratch.projectId]);
      const meet = async () => {
        await until(async () => (await many(WAITS, side.pid)) > 0, 'the side waits behind it');
        await keeper.session.query('rollback');
      };
      await Promise.all([wanted, meet()]);
      await side.session.query('rollback');
    };
    for (let time = 0; time < times; time += 1) {
      await keeper.session.query('begin');
      await keeper.session.query(PROJECT, [scratch.projectId]);
      await side.session.query('begin');
      await side.session.query(HEAD, [scratch.projectId, DOCUMENT]);
      await Promise.all([send(), cross()]);
    }
    await until(async () => (await many(DEADLOCKS)) >= before + times, 'PostgreSQL has counted the deadlocks');
    return { times, broken: compare(await contentsOf(world, scratch), told) };
  },
};
