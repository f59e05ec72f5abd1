import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openClient, withPasswordFile } from '../src/db/connection.ts';
import { createDatabase } from '../src/db/pool.ts';
import { checkRole } from '../src/db/role-check.ts';
import { ROLES } from '../src/db/role-table.ts';
import { bootstrap, withDatabase, withLogin } from '../src/db/roles.ts';
import { createLog } from '../src/log.ts';
import { latestVersion } from '../src/migrator/files.ts';
import { migrate } from '../src/migrator/migrate.ts';
import { outcomeOf } from './support/methods.ts';
import { connectAs } from './support/postgres.ts';
import { prepareServer, useServer } from './support/server.ts';
import { useService } from './support/service.ts';
import { BASE_ENVIRONMENT } from './support/spawned.ts';
import { until } from './support/until.ts';

const ENTRY = fileURLToPath(new URL('../src/jeex-persistence.js', import.meta.url));
const MIGRATIONS = fileURLToPath(new URL('../migrations', import.meta.url));

/** A role without a login has no password either, which PostgreSQL finds out first. */
const MAY_NOT = { code: '28P01' };

const newFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'jeex-roles-'));
  after(() => rmSync(folder, { recursive: true }));
  return folder;
};

const query = async (url: string, sql: string): Promise<Record<string, unknown>[]> => {
  const client = await openClient(url, 'test');
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
};

const [fresh, altered] = [await useServer(), await useServer()];

describe('bootstrap on a server of one’s own', () => {
  const { adminUrl } = fresh;
  const folder = newFolder();
  const put = (login: string, password: string) => writeFileSync(join(folder, `jeex_${login}`), `${password}\n`);
  const loginAs = (login: string, password: string) =>
    query(withLogin(adminUrl, 'jeex', `jeex_${login}`, password), 'select current_user::text as me');
  const bootstrapCommand = () =>
    promisify(execFile)(process.execPath, [ENTRY, 'bootstrap'], {
      env: { ...BASE_ENVIRONMENT, ADMIN_DATABASE_URL: adminUrl, PASSWORDS_DIR: folder },
    });

  it('refuses a directory without the needed files, or with a weak password, and names them', async () => {
    put('monitor', 'short');
    await assert.rejects(bootstrapCommand(), (error: Error & { code: number; stderr: string }) => {
      assert.equal(error.code, 2);
      for (const name of ['jeex_owner', 'jeex_app', 'jeex_monitor'])
        assert.match(error.stderr, new RegExp(`/${name}\\b`));
      assert.doesNotMatch(error.stderr, /short/);
      return true;
    });
    rmSync(join(folder, 'jeex_monitor'));
  });

  it('brings a server of release 0.1.0 up to date, which a migration alone cannot', async () => {
    await query(adminUrl, AS_RELEASE_0_1_0);
    await query(
      adminUrl,
      `create database jeex owner jeex_owner template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'
         locale_provider builtin builtin_locale 'C.UTF-8'`,
    );
    await query(withDatabase(adminUrl, 'jeex'), SCHEMAS_OF_RELEASE_0_1_0);
    await query(withDatabase(adminUrl, 'jeex'), 'create extension pg_stat_statements schema public');
    const ownerUrl = withLogin(adminUrl, 'jeex', 'jeex_owner', 'owner of 0.1.0');
    const released = newFolder();
    for (const file of readdirSync(MIGRATIONS).filter((name) => name < '010')) {
      cpSync(join(MIGRATIONS, file), join(released, file));
    }
    assert.equal((await migrate(ownerUrl, { mode: 'auto', directory: released })).version, 9);
    await assert.rejects(
      migrate(ownerUrl, { mode: 'auto' }),
      /jeex_readonly are missing: run `jeex-persistence bootstrap`/,
    );
    put('owner', 'owner password 1');
    put('app', 'app password 1');
    put('readonly', 'readonly password 1');
    const { stdout, stderr } = await bootstrapCommand();
    assert.doesNotMatch(stdout + stderr, /password 1/);
    assert.match(stdout, /^DATABASE_URL=postgres:\/\/jeex_app@[^:]+:\d+\/jeex\nDATABASE_PASSWORD_FILE=.*\/jeex_app\n/);
    assert.match(stderr, /without a login: jeex_monitor, jeex_backup, jeex_pooler/);
    const renewed = withLogin(adminUrl, 'jeex', 'jeex_owner', 'owner password 1');
    assert.equal((await migrate(renewed, { mode: 'auto' })).version, latestVersion());
    const moved = `select to_regclass('stats.pg_stat_statements') is not null as moved`;
    assert.deepEqual(await query(withDatabase(adminUrl, 'jeex'), moved), [{ moved: true }]);
    assert.deepEqual(await loginAs('readonly', 'readonly password 1'), [{ me: 'jeex_readonly' }]);
    await assert.rejects(loginAs('backup', 'backup password'), MAY_NOT);
  });

  it('takes the files’ passwords of now, and the login of a role whose file is gone', async () => {
    put('app', 'app password 2');
    put('monitor', 'monitor password 2');
    rmSync(join(folder, 'jeex_readonly'));
    await bootstrapCommand();
    assert.deepEqual(await loginAs('app', 'app password 2'), [{ me: 'jeex_app' }]);
    assert.deepEqual(await loginAs('monitor', 'monitor password 2'), [{ me: 'jeex_monitor' }]);
    await assert.rejects(loginAs('app', 'app password 1'), { code: '28P01' });
    await assert.rejects(loginAs('readonly', 'readonly password 1'), MAY_NOT);
    const closed = await query(
      adminUrl,
      `select rolname::text from pg_roles where rolname like 'jeex%' and not rolcanlogin`,
    );
    assert.deepEqual(closed.map(({ rolname }) => rolname).sort(), [
      'jeex_backup',
      'jeex_pooler',
      'jeex_readonly',
      'jeex_system',
    ]);
  });

  it('keeps the verifier of a password that stays, since poolers remember it', async () => {
    const verifiers = async () => {
      const rows = await query(adminUrl, `select rolname::text, rolpassword from pg_authid where rolname like 'jeex%'`);
      return new Map(rows.map(({ rolname, rolpassword }) => [rolname, rolpassword]));
    };
    const before = await verifiers();
    put('app', 'app password 3');
    await bootstrapCommand();
    const after = await verifiers();
    assert.notEqual(after.get('jeex_app'), before.get('jeex_app'));
    for (const role of ['jeex_owner', 'jeex_monitor']) assert.equal(after.get(role), before.get(role), role);
    assert.deepEqual(await loginAs('monitor', 'monitor password 2'), [{ me: 'jeex_monitor' }]);
  });

  it('gives the pooler no verifier that is out of date, or of a role without a login', async () => {
    const ask = () => query(withDatabase(adminUrl, 'jeex'), `select * from pooler.get_auth('jeex_app')`);
    assert.equal((await ask()).length, 1);
    await query(adminUrl, `alter role jeex_app valid until '2020-01-01'`);
    assert.deepEqual(await ask(), []);
    await query(adminUrl, `alter role jeex_app valid until 'infinity' nologin`);
    assert.deepEqual(await ask(), []);
  });
});

describe('bootstrap by an administrator who is no superuser', () => {
  it('makes what it may, and says what is left to a superuser', async () => {
    const { adminUrl } = fresh;
    await query(adminUrl, `create role administrator login createdb createrole password 'administrator'`);
    await query(adminUrl, `grant ${ROLES.map(({ name }) => name)} to administrator with admin option`);
    const url = withLogin(adminUrl, 'postgres', 'administrator', 'administrator');
    const { ownerUrl, notes } = await bootstrap(url, { database: 'other', passwords: { owner: 'o', app: 'a' } });
    assert.equal((await query(ownerUrl, "select from pg_extension where extname = 'pgcrypto'")).length, 1);
    assert.match(notes.join('\n'), /postgresql.conf.*log_error_verbosity = terse/);
    assert.match(notes.join('\n'), /grant pg_monitor to jeex_monitor\n.*auth_query/s);
  });
});

describe('the service’s role', async () => {
  const passwords = { owner: 'the owner of the schema', app: 'the service itself' };
  const db = await prepareServer(altered.adminUrl, passwords);
  const admin = await connectAs(db.adminUrl);

  const check = async (url = db.appUrl): Promise<Record<string, unknown>[]> => {
    const lines: string[] = [];
    const pool = await createDatabase({ url, size: 1 });
    try {
      await checkRole(pool, createLog('info', { write: (line) => void lines.push(line) }));
    } finally {
      await pool.end();
    }
    return lines.map((line) => JSON.parse(line));
  };

  it('may serve as bootstrap makes it, and is told once that pgaudit does not log', async () => {
    const lines = await check();
    assert.equal(lines.length, 1);
    assert.match(String(lines[0]?.msg), /pgaudit/);
  });

  const REFUSED: readonly (readonly [string, string, string, RegExp])[] = [
    [
      'is a superuser',
      'alter role jeex_app superuser',
      'alter role jeex_app nosuperuser',
      /is a superuser: set DATABASE/,
    ],
    ['bypasses row-level security', 'alter role jeex_app bypassrls', 'alter role jeex_app nobypassrls', /bypasses row/],
    ['can become the owner', 'grant jeex_owner to jeex_app', 'revoke jeex_owner from jeex_app', /become jeex_owner/],
    [
      'can become what crosses projects',
      'grant jeex_system to jeex_app with inherit false',
      'revoke jeex_system from jeex_app',
      /become jeex_system: revoke/,
    ],
    [
      'owns a tenant table',
      'alter table changes owner to jeex_app',
      'alter table changes owner to jeex_owner; grant select, insert on changes to jeex_app',
      /owns table changes/,
    ],
    [
      'owns the schema',
      'alter schema jeex owner to jeex_app',
      'alter schema jeex owner to jeex_owner; grant usage on schema jeex to jeex_app',
      /owns schema jeex/,
    ],
    [
      'meets a table without forced row-level security',
      'alter table projects no force row level security',
      'alter table projects force row level security',
      /not forced on projects: alter table jeex.projects/,
    ],
    [
      'meets a table without row-level security',
      'alter table exports disable row level security',
      'alter table exports enable row level security',
      /not forced on exports/,
    ],
  ];
  for (const [what, harm, cure, says] of REFUSED) {
    it(`may not serve when it ${what}`, async () => {
      await admin.query(harm);
      try {
        await assert.rejects(check(), says);
      } finally {
        await admin.query(cure);
      }
      await check();
    });
  }

  it('stops the start of the service itself', async () => {
    await assert.rejects(useService({ db, appUrl: () => db.adminUrl }), /does not serve as the database role postgres/);
    await assert.rejects(useService({ db, appUrl: () => db.ownerUrl }), /owns .*table projects/);
  });

  it('is told when content could reach the server’s log', async () => {
    await admin.query('alter role jeex_app set log_error_verbosity = verbose');
    const [warning] = await check();
    assert.match(String(warning?.msg), /content can reach/);
    assert.deepEqual(warning?.settings, ['log_error_verbosity = terse']);
    await admin.query('alter role jeex_app set log_error_verbosity = terse');
  });

  it('keeps content out of the log whatever the server’s configuration', async () => {
    await admin.query('alter database jeex set log_error_verbosity = verbose');
    await admin.query('alter database jeex set log_parameter_max_length = -1');
    const rows = await query(
      db.appUrl,
      `select current_setting('log_error_verbosity') as v, current_setting('log_parameter_max_length') as p`,
    );
    assert.deepEqual(rows, [{ v: 'terse', p: '0' }]);
  });

  it('leaves no connection behind that it could not finish', async () => {
    const url = new URL(db.appUrl);
    url.password = '';
    for (let i = 0; i < 3; i++) await assert.rejects(openClient(url.href, 'test'), /password must be a string/);
    const pool = await createDatabase({ url: url.href, size: 1 });
    await assert.rejects(checkRole(pool, createLog('silent')), /password must be a string/);
    await pool.end();
    // PostgreSQL itself waits for a password for a minute.
    const starting = `select from pg_stat_activity where state = 'starting'`;
    await until(async () => (await admin.query(starting)).rowCount === 0, 'their end');
  });

  it('takes a new password from its file without a restart', async () => {
    const file = join(newFolder(), 'jeex_app');
    writeFileSync(file, `${passwords.app}\n`);
    const url = withPasswordFile(db.appUrl, file) ?? '';
    const service = await useService({ db, appUrl: () => url });
    const ask = () => service.database.getMigrationStatus({});
    const ready = async () => (await fetch(`http://${service.http}/readyz`)).status === 200;
    const refused = async () => (await outcomeOf(ask())) === 'DATABASE_UNAVAILABLE';
    // One that was let in just before the password changed may appear later, so all are ended until none is left.
    const cutConnections = () =>
      until(async () => {
        await admin.query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'jeex_app'`);
        return !(await ready()) && (await refused());
      }, 'no connection can be made');
    assert.ok(await ask());

    await admin.query(`alter role jeex_app password 'another password'`);
    assert.ok(await ask(), 'open connections go on');
    await cutConnections();
    writeFileSync(file, 'another password');
    await until(ready, 'ready');
    assert.ok(await ask());

    writeFileSync(file, '\n');
    await cutConnections();
    await assert.rejects(openClient(url, 'test'), /the password file .*jeex_app is empty/);
    rmSync(file);
    await assert.rejects(openClient(url, 'test'), /the password file cannot be read: ENOENT.*jeex_app/);
    writeFileSync(file, 'another password\n');
    await until(ready, 'ready');
    assert.ok(await ask());
  });
});

const AS_RELEASE_0_1_0 = `
  create role jeex_owner login password 'owner of 0.1.0';
  create role jeex_app login password 'app of 0.1.0';
  create role jeex_system nologin;
  alter role jeex_app set statement_timeout = '15s';
  alter role jeex_owner set search_path = 'jeex';
  grant jeex_system to jeex_owner with inherit false, set true;`;
const SCHEMAS_OF_RELEASE_0_1_0 = `
  revoke all on database jeex from public;
  grant connect on database jeex to jeex_app;
  revoke all on schema public from public;
  create schema if not exists jeex authorization jeex_owner;
  grant usage on schema jeex to jeex_app, jeex_system;
  create schema if not exists crypto;
  grant usage on schema crypto to jeex_system;
  create extension if not exists pgcrypto schema crypto;`;
