import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, suite, test } from 'node:test';
import { Client } from 'pg';
import { LOGINS, type Login, QUIET_LOG } from '../src/db/role-table.ts';
import { bootstrap, withDatabase, withLogin } from '../src/db/roles.ts';
import { testCluster, useTestDatabase } from './support/postgres.ts';

const { adminUrl, passwords } = testCluster();

async function query<T extends object = Record<string, unknown>>(url: string, sql: string): Promise<T[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
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
    const db = await useTestDatabase();
    const LIMITS: Readonly<Record<Login, readonly string[]>> = {
      //       statement, lock, idle in transaction, transaction, idle session, read only
      owner: ['0', '5s', '5min', '0', '15min', 'off'],
      app: ['15s', '5s', '30s', '30s', '0', 'off'],
      readonly: ['1min', '5s', '1min', '5min', '15min', 'on'],
      monitor: ['10s', '1s', '10s', '10s', '0', 'on'],
      backup: ['0', '5min', '1h', '0', '0', 'off'],
      pooler: ['5s', '1s', '5s', '5s', '0', 'on'],
    };
    const names = [
      'statement_timeout',
      'lock_timeout',
      'idle_in_transaction_session_timeout',
      'transaction_timeout',
      'idle_session_timeout',
      'default_transaction_read_only',
    ];
    const settings = async (login: Login, which: readonly string[]) => {
      const [row] = await query(
        db.urlAs(login),
        `select ${which.map((name) => `current_setting('${name}') as ${name}`)}`,
      );
      return Object.values(row ?? {});
    };
    for (const login of LOGINS) assert.deepEqual(await settings(login, names), LIMITS[login], login);
    assert.deepEqual(await settings('app', ['search_path', 'jit', 'enable_memoize']), ['jeex', 'off', 'off']);
    const limited = await query(
      adminUrl,
      `select rolname::text as role, rolconnlimit as most from pg_roles where rolname like 'jeex%' and rolconnlimit >= 0
       and rolname = any ('{${LOGINS.map((login) => `jeex_${login}`)}}') order by 1`,
    );
    assert.deepEqual(limited, [
      { role: 'jeex_backup', most: 10 },
      { role: 'jeex_monitor', most: 20 },
      { role: 'jeex_readonly', most: 10 },
    ]);
  });

  test('keeps content out of the server’s log by the roles themselves', async () => {
    const db = await useTestDatabase();
    for (const login of LOGINS) {
      const [row] = await query<{ own: string[] }>(
        db.urlAs(login),
        `select (select setconfig from pg_db_role_setting where setrole = '"jeex_${login}"'::regrole and setdatabase = 0) as own`,
      );
      for (const [name, quiet] of Object.entries(QUIET_LOG)) {
        assert.ok(row?.own.includes(`${name}=${quiet}`), `${login}: ${name}`);
      }
    }
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

  test('keeps the options of the URL', () => {
    const url = withDatabase('postgres://a:b%40c@[::1]:6432/postgres?sslmode=require', 'x y');
    assert.equal(url, 'postgres://a:b%40c@[::1]:6432/x%20y?sslmode=require');
  });
});
