import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, suite, test } from 'node:test';
import { Client } from 'pg';
import { bootstrap, withDatabase, withLogin } from '../src/db/roles.ts';
import { testCluster } from './support/postgres.ts';

const { adminUrl, passwords } = testCluster();

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

/** A name that has to be quoted, dropped after the suite. */
function newDatabase(): string {
  const name = `Jeex "Test" ${randomBytes(4).toString('hex')}`;
  after(() => query(adminUrl, `drop database if exists "${name.replaceAll('"', '""')}" with (force)`));
  return name;
}

suite('bootstrap', () => {
  test('succeeds for five at the same time on a server without the database', async () => {
    const database = newDatabase();
    const all = await Promise.all(Array.from({ length: 5 }, () => bootstrap(adminUrl, { database, passwords })));
    for (const { ownerUrl, appUrl } of all) {
      assert.deepEqual(await query(ownerUrl, 'select current_user::text'), [{ current_user: 'jeex_owner' }]);
      assert.deepEqual(await query(appUrl, 'select current_user::text'), [{ current_user: 'jeex_app' }]);
    }
  });

  test('gives the database a locale that is the same everywhere', async () => {
    const database = newDatabase();
    const { ownerUrl } = await bootstrap(adminUrl, { database, passwords });
    const found = await query(
      ownerUrl,
      `select datlocprovider::text p, datlocale l, pg_encoding_to_char(encoding) e
       from pg_database where datname = current_database()`,
    );
    assert.deepEqual(found, [{ p: 'b', l: 'C.UTF-8', e: 'UTF8' }]);
  });

  test('puts the limits on the roles', async () => {
    const { appUrl, ownerUrl } = await bootstrap(adminUrl, { database: newDatabase(), passwords });
    const names = ['search_path', 'statement_timeout', 'lock_timeout', 'transaction_timeout', 'jit', 'enable_memoize'];
    const settings = (url: string) =>
      query(url, `select ${names.map((name) => `current_setting('${name}') as ${name}`)}`);
    const [app] = await settings(appUrl);
    assert.deepEqual(Object.values(app ?? {}), ['jeex', '15s', '5s', '30s', 'off', 'off']);
    const [owner] = await settings(ownerUrl);
    assert.deepEqual(Object.values(owner ?? {}).slice(0, 4), ['jeex', '0', '5s', '0']);
  });

  test('lets the app create nothing and others not in', async () => {
    const database = newDatabase();
    const { appUrl } = await bootstrap(adminUrl, { database, passwords });
    for (const place of ['table jeex.t', 'table public.t', 'temporary table t']) {
      await assert.rejects(query(appUrl, `create ${place} (id int)`), { code: '42501' });
    }
    await assert.rejects(query(appUrl, 'set role jeex_system'), { code: '42501' });
    const stranger = `stranger_${randomBytes(4).toString('hex')}`;
    await query(adminUrl, `create role ${stranger} login password 'stranger'`);
    try {
      await assert.rejects(query(withLogin(adminUrl, database, stranger, 'stranger'), 'select 1'), { code: '42501' });
    } finally {
      await query(adminUrl, `drop role ${stranger}`);
    }
  });

  test('works for an administrator who is no superuser', async () => {
    const admin = `jeex_admin_${randomBytes(4).toString('hex')}`;
    const database = newDatabase();
    await query(adminUrl, `create role ${admin} login createdb createrole password 'administrator'`);
    await query(adminUrl, `grant jeex_owner, jeex_app, jeex_system to ${admin} with admin option`);
    try {
      const url = withLogin(adminUrl, new URL(adminUrl).pathname.slice(1), admin, 'administrator');
      const { ownerUrl } = await bootstrap(url, { database, passwords });
      assert.equal((await query(ownerUrl, "select from pg_extension where extname = 'pgcrypto'")).length, 1);
    } finally {
      await query(adminUrl, `drop database if exists "${database.replaceAll('"', '""')}" with (force)`);
      await query(adminUrl, `drop owned by ${admin} cascade; drop role ${admin}`);
    }
  });

  test('keeps the options of the URL', () => {
    const url = withDatabase('postgres://a:b%40c@[::1]:6432/postgres?sslmode=require', 'x y');
    assert.equal(url, 'postgres://a:b%40c@[::1]:6432/x%20y?sslmode=require');
  });
});
