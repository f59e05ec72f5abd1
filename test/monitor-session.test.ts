import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ZodError, z } from 'zod';
import { createSession } from '../src/monitor/session.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();
const admin = await connectAs(db.adminUrl);
const proxy = await useProxy(db.urlAs('monitor'));
const session = createSession(proxy.url);

const PID = z.object({ pid: z.int() });
const pidNow = async () => (await session.rows('select pg_backend_pid() as pid', [], PID))[0]?.pid;

describe('the session of the monitor', () => {
  it('is opened by the first question, and is one for all of them', async () => {
    assert.equal(proxy.connections, 0);
    const pids = await Promise.all(Array.from({ length: 20 }, pidNow));
    assert.deepEqual([new Set(pids).size, proxy.connections], [1, 1]);
  });

  it('takes values, and gives numbers and times without loss', async () => {
    const row = z.object({ many: z.bigint(), time: z.bigint(), text: z.string() });
    const text = `select 9007199254740993::bigint as many, '2026-01-01 00:00:00.000001+00'::timestamptz as time, $1::text as text`;
    assert.deepEqual(await session.rows(text, ['x'], row), [
      { many: 9_007_199_254_740_993n, time: 1_767_225_600_000_001n, text: 'x' },
    ]);
    await assert.rejects(session.rows(`select 1 as pid, '' as text`, [], row), ZodError);
  });

  it('stays when PostgreSQL refuses a statement', async () => {
    const pid = await pidNow();
    await assert.rejects(session.rows('select from nothing', [], PID), { code: '42P01' });
    assert.equal(await pidNow(), pid);
  });

  it('is opened again when it was lost', async () => {
    const pid = await pidNow();
    await admin.query('select pg_terminate_backend($1)', [pid]);
    await until(
      () =>
        pidNow().then(
          (now) => now !== pid,
          () => false,
        ),
      'another one answers',
    );
  });

  it('gives up a question that is not answered, and goes on with the next', async () => {
    const pid = await pidNow();
    await assert.rejects(session.rows('select pg_sleep(60)::text as pid', [], PID), /timeout/);
    assert.notEqual(await pidNow(), pid);
  });

  it('lets few questions wait', async () => {
    const asked = await Promise.allSettled(Array.from({ length: 40 }, pidNow));
    const refused = asked.filter((each) => each.status === 'rejected');
    assert.deepEqual([...new Set(refused.map(({ reason }) => reason.reason))], ['OVERLOADED']);
    assert.equal(refused.length, 8);
    assert.ok(await pidNow());
  });

  it('ends with its connection, and is not opened again', async () => {
    const pid = await pidNow();
    await session.end();
    await until(async () => {
      const { rowCount } = await admin.query('select from pg_stat_activity where pid = $1', [pid]);
      return rowCount === 0;
    }, 'the connection is closed');
    await assert.rejects(pidNow(), /the monitor has ended/);
  });
});
