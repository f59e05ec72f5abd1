import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { createDatabase } from '../src/db/pool.ts';
import { sql, statement } from '../src/db/statement.ts';
import { Refusal } from '../src/refusal.ts';
import { connectAs } from './support/postgres.ts';
import { useServer } from './support/server.ts';
import { until } from './support/until.ts';

const write = statement({
  name: 'test.write',
  params: {},
  row: z.object({ n: z.number() }),
  sql: () => sql.fragment`insert into public.written values (1) returning n`,
});

test('a write that no standby has confirmed is not acknowledged', async () => {
  const { adminUrl } = await useServer();
  const admin = await connectAs(adminUrl);
  await admin.query('create table public.written (n integer)');
  await admin.query('alter role current_user set synchronous_commit = on');
  await admin.query(`alter system set synchronous_standby_names = 'nobody'`);
  await admin.query('select pg_reload_conf()');
  const database = await createDatabase({ url: adminUrl, size: 2 });
  const deadline = new AbortController();
  const answer = database.run(write, {}, deadline).then(
    () => 'acknowledged',
    (error: unknown) => (error instanceof Refusal ? [error.reason, error.outcome] : error),
  );
  await until(async () => {
    const { rowCount } = await admin.query(`select from pg_stat_activity where wait_event = 'SyncRep'`);
    return rowCount === 1;
  }, 'the commit waits for a standby');
  deadline.abort(new Refusal('DEADLINE', 'the deadline has passed', { outcome: 'unknown' }));
  assert.deepEqual(await answer, ['DEADLINE', 'unknown']);
  assert.equal((await admin.query('select from public.written')).rowCount, 1, 'it is done nevertheless');
  await database.end();
});
