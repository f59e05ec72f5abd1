import assert from 'node:assert/strict';
import type { EventEmitter } from 'node:events';
import { after, describe, it } from 'node:test';
import { z } from 'zod';
import { exchange, Misdescribed, type Shapes } from '../src/db/exchange.ts';
import { createDatabase } from '../src/db/pool.ts';
import { sql, statement } from '../src/db/statement.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { until } from './support/until.ts';

const CALLERS = 8;
const CONNECTIONS = 4;
const CHANGES = 12;

const all = statement({
  name: 'test.plan_all',
  params: { id: 'int4' },
  row: z.object({ id: z.number() }),
  sql: (p) => sql.fragment`select * from plan_probe where id = ${p.id}`,
});
const forget = statement({
  name: 'test.plan_forget',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`deallocate all`,
});
const forgotten = statement({
  name: 'test.plan_forgotten',
  params: {},
  row: z.object({ three: z.number() }),
  sql: () => sql.fragment`select 3 as three`,
});
const taken = statement({
  name: 'test.plan_taken',
  params: {},
  row: z.object({ two: z.number() }),
  sql: () => sql.fragment`select 2 as two`,
});
const take = statement({
  name: 'test.plan_take',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`prepare ${sql.identifier([taken.token({}).name ?? ''])} as select 1`,
});

const db = await useTestDatabase();
const owner = await useOwner(db);
await owner.query(`
  create table plan_probe (id integer primary key, value integer);
  insert into plan_probe values (1, 1);
  grant select on plan_probe to jeex_app`);

const poolOf = async (size: number, url = db.appUrl) => {
  const pool = await createDatabase({ url, size });
  after(() => pool.end());
  return pool;
};

describe('a prepared statement', () => {
  it('outlives migrations that change its columns: no caller under way sees an error', async () => {
    const pool = await poolOf(CONNECTIONS);
    let answered = 0;
    let going = true;
    const failures: unknown[] = [];
    const call = async () => {
      while (going) {
        await pool.run(all, { id: 1 }).then(
          () => {
            answered += 1;
          },
          (error) => failures.push(error.cause),
        );
      }
    };
    const callers = Array.from({ length: CALLERS }, call);
    for (let i = 0; i < CHANGES; i++) {
      const before = answered;
      // Every connection has the statement prepared with the columns of before.
      await until(() => answered >= before + 10 * CALLERS || failures.length > 0, 'calls are answered');
      await owner.query(
        `alter table plan_probe alter value type ${i % 2 === 0 ? 'text' : 'integer using value::integer'}`,
      );
    }
    going = false;
    await Promise.all(callers);
    assert.deepEqual(failures, []);
    assert.ok(pool.state().connects <= CONNECTIONS, 'and no connection was given up');
  });

  it('is prepared again where its session has forgotten it', async () => {
    // Direct: PgBouncer ends a client that forgets (`prepared statement did not exist`, 08P01).
    const pool = await poolOf(1, db.urlAs('app'));
    assert.equal((await pool.run(all, { id: 1 })).length, 1);
    await pool.run(forget, {});
    assert.equal((await pool.run(all, { id: 1 })).length, 1);
    assert.equal(pool.state().connects, 1);
  });

  it('is not prepared anew for ever where every session forgets it', async () => {
    const pool = await poolOf(1, db.urlAs('app'));
    const forgetful = async () => {
      await pool.run(forget, {});
      await pool.run(forgotten, {});
    };
    await pool.run(forgotten, {});
    let served = 0;
    const serve = async () => {
      for (; served < 1000; served++) await forgetful();
    };
    await assert.rejects(serve, { reason: 'INTERNAL', outcome: 'not_applied' });
    assert.equal(served, 100);
  });

  it('is prepared under another name where somebody took its own', async () => {
    const pool = await poolOf(1);
    await pool.run(take, {});
    assert.deepEqual(await pool.run(taken, {}), [{ two: 2 }]);
  });
});

describe('what a connection knows of a statement’s columns', () => {
  const prepared = { name: 'probe', text: 'select 1 as one, null::text as nothing, 2::int8 as two' };
  const row = { one: 1, nothing: null, two: 2n };

  it('is asked for once where its text fixes them, else each time', async () => {
    const client = await connectAs(db.urlAs('app'));
    let described = 0;
    (client as unknown as { readonly connection: EventEmitter }).connection.on('rowDescription', () => described++);
    const shapes: Shapes = new Map();
    for (const known of [shapes, shapes, shapes, null, null]) {
      assert.deepEqual(await exchange(client, prepared, [], known), [row]);
    }
    assert.equal(described, 3);
  });

  it('is forgotten when other columns come', async () => {
    const client = await connectAs(db.urlAs('app'));
    const shapes: Shapes = new Map();
    await exchange(client, prepared, [], shapes);
    shapes.set(prepared.name, { names: ['one'], parsers: [String] });
    await assert.rejects(exchange(client, prepared, [], shapes), Misdescribed);
    assert.deepEqual(await exchange(client, prepared, [], shapes), [row]);
  });

  it('is nothing where PostgreSQL refuses, or a value cannot be sent', async () => {
    const client = await connectAs(db.urlAs('app'));
    const failing = { name: 'failing', text: 'select 1 / $1::int as one' };
    const circular = { toPostgres: () => circular };
    await assert.rejects(exchange(client, failing, [0], new Map()), { code: '22012' });
    await assert.rejects(exchange(client, failing, [circular], new Map()), /circular/);
    assert.deepEqual(await exchange(client, failing, [1], new Map()), [{ one: 1 }]);
  });
});
