import assert from 'node:assert/strict';
import { chownSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { withDatabase } from '../src/db/roles.ts';
import type { Result } from '../src/doctor/check.ts';
import { CHECKS, runDoctor } from '../src/doctor/doctor.ts';
import { examine } from '../src/doctor/patient.ts';
import { createAuthority, useSecret } from './support/certificates.ts';
import { connectAs } from './support/postgres.ts';
import { prepareServer, useServer } from './support/server.ts';
import { ENCRYPTION_KEY, useService } from './support/service.ts';
import { until } from './support/until.ts';

const { adminUrl } = await useServer();
const passwords = {
  ...{ owner: 'the owner of the test', app: 'the app of the test', readonly: 'the readonly of the test' },
  ...{ monitor: 'the monitor of the test', backup: 'the backup of the test', pooler: 'the pooler of the test' },
};
const db = await prepareServer(adminUrl, passwords);
const admin = await connectAs(db.adminUrl);
const owner = await connectAs(db.ownerUrl);
const authority = await createAuthority('The doctor');

const ENV = {
  DATABASE_URL: db.appUrl,
  MIGRATION_DATABASE_URL: db.ownerUrl,
  LISTEN_DATABASE_URL: db.appUrl,
  ADMIN_DATABASE_URL: db.adminUrl,
  ENCRYPTION_KEYS: ENCRYPTION_KEY,
};
// The first start of a service registers its key.
await (await useService({ db })).stop();

const examined = async (env: Readonly<Record<string, string>> = {}): Promise<readonly Result[]> => {
  await using opened = new AsyncDisposableStack();
  const { signal } = new AbortController();
  return await runDoctor(examine({ ...ENV, ...env }, opened, signal), () => {}, signal);
};

const named = (results: readonly Result[], name: string): Result => {
  const result = results.find((one) => one.name === name);
  assert.ok(result, name);
  return result;
};

const namesOf = (results: readonly Result[], status: Result['status']): readonly string[] =>
  results.filter((result) => result.status === status).map(({ name }) => name);

/** What one check says, each fault with its mending. */
const told = ({ status, faults }: Result): string =>
  [status, ...faults.map(({ says, mend }) => `${says} -> ${mend}`)].join('\n');

/** A temporary server is not made to last, and has neither an archive nor pgaudit. */
const TEMPORARY = { failed: ['durability'], warning: ['pgaudit', 'archive'] };

describe('the doctor', () => {
  it('finds nothing wrong with what bootstrap and migrations have made', async () => {
    const results = await examined();
    assert.deepEqual(namesOf(results, 'failed'), TEMPORARY.failed);
    assert.deepEqual(namesOf(results, 'warning'), TEMPORARY.warning);
    assert.deepEqual(namesOf(results, 'skipped'), ['TLS files', 'token keys', 'PgBouncer']);
    assert.equal(results.length, CHECKS.length);
  });

  it('names each check once', () => {
    assert.equal(new Set(CHECKS.map(({ name }) => name)).size, CHECKS.length);
  });

  const BROKEN: readonly {
    readonly check: string;
    readonly harm: string;
    readonly cure: string;
    readonly says: RegExp;
    readonly by?: typeof admin;
  }[] = [
    {
      check: 'row-level security',
      harm: 'alter table projects no force row level security',
      cure: 'alter table projects force row level security',
      says: /^failed\nrow-level security is not forced on projects -> alter table jeex.projects enable row level security, force row level security$/,
      by: owner,
    },
    {
      check: "the service's role",
      harm: 'alter role jeex_app bypassrls',
      cure: 'alter role jeex_app nobypassrls',
      says: /^failed\nit bypasses row-level security -> alter role jeex_app nobypassrls$/,
    },
    {
      check: "the service's role",
      harm: 'grant jeex_owner to jeex_app with inherit false, set true',
      cure: 'revoke jeex_owner from jeex_app',
      says: /it can become jeex_owner -> revoke jeex_owner from jeex_app/,
    },
    {
      check: 'policies and rights',
      harm: 'create policy open on projects for select to jeex_app using (true)',
      cure: 'drop policy open on projects',
      says: /^failed\n.*projects.* -> undo what was changed by hand/,
      by: owner,
    },
    {
      check: 'all roles',
      harm: 'alter role jeex_backup superuser',
      cure: 'alter role jeex_backup nosuperuser',
      says: /^failed\njeex_backup has superuser -> alter role jeex_backup nosuperuser$/,
    },
    {
      check: 'all roles',
      harm: 'alter role jeex_readonly rename to jeex_gone',
      cure: 'alter role jeex_gone rename to jeex_readonly',
      says: /^failed\njeex_readonly is missing -> run `jeex-persistence bootstrap` again/,
    },
    {
      check: 'all roles',
      harm: 'alter role jeex_app reset statement_timeout',
      cure: `alter role jeex_app set statement_timeout = '15s'`,
      says: /^warning\njeex_app has no statement_timeout = 15s -> run `jeex-persistence bootstrap`/,
    },
    {
      check: 'all roles',
      harm: 'alter role jeex_readonly connection limit 50',
      cure: 'alter role jeex_readonly connection limit 10',
      says: /^warning\njeex_readonly has the connection limit 50, not 10 -> /,
    },
    {
      check: 'all roles',
      harm: 'revoke pg_monitor from jeex_monitor',
      cure: 'grant pg_monitor to jeex_monitor',
      says: /^warning\njeex_monitor is no member of pg_monitor -> grant pg_monitor to jeex_monitor$/,
    },
    {
      check: 'all roles',
      harm: 'alter role jeex_system login',
      cure: 'alter role jeex_system nologin',
      says: /^failed\njeex_system can log in -> alter role jeex_system nologin$/,
    },
    {
      check: 'schema',
      harm: 'create table kept as table schemaversion; delete from schemaversion where version = (select max(version) from kept)',
      cure: 'insert into schemaversion select * from kept order by version desc limit 1; drop table kept',
      says: /^failed\nmissing: 14 retention -> run `jeex-persistence migrate up`/,
      by: owner,
    },
    {
      check: 'schema',
      harm: `update schemaversion set md5 = reverse(md5) where version = 3`,
      cure: `update schemaversion set md5 = reverse(md5) where version = 3`,
      says: /^failed\nmigration 003 users was changed after it had been applied -> /,
      by: owner,
    },
    {
      check: 'schema',
      harm: `insert into schemaversion (version, name, oldest_release) values (999, 'later', 999)`,
      cure: 'delete from schemaversion where version = 999',
      says: /^failed\nthe database is at version 999, and the oldest release that can serve it knows migration 999; .* -> start/,
      by: owner,
    },
    {
      check: 'passwords',
      harm: `alter role jeex_readonly password 'md5${'0'.repeat(32)}'`,
      cure: `alter role jeex_readonly password '${passwords.readonly}'`,
      says: /^failed\njeex_readonly has an MD5 of its password -> set it again/,
    },
    {
      check: 'passwords',
      harm: `alter role jeex_app set password_encryption = 'md5'`,
      cure: 'alter role jeex_app reset password_encryption',
      says: /^failed\npassword_encryption is md5 -> set password_encryption = 'scram-sha-256'/,
    },
    {
      check: 'content in the log',
      harm: 'alter role jeex_app set log_error_verbosity = verbose',
      cure: 'alter role jeex_app set log_error_verbosity = terse',
      says: /^failed\nnot in force for the service: log_error_verbosity = terse -> run `jeex-persistence bootstrap` as a/,
    },
    {
      check: 'content in the log',
      harm: `alter role jeex_app set auto_explain.log_min_duration = '1s'`,
      cure: 'alter role jeex_app set auto_explain.log_min_duration = -1',
      says: /^failed\nauto_explain prints plans with values in them -> alter role jeex_app set auto_explain/,
    },
    {
      check: 'extensions',
      harm: 'alter role jeex_app set pg_stat_statements.track_utility = on',
      cure: 'alter role jeex_app reset pg_stat_statements.track_utility',
      says: /^warning\npg_stat_statements keeps the texts of utility statements, .* -> set pg_stat_statements/,
    },
    {
      check: 'extensions',
      harm: 'alter role jeex_app set pg_stat_statements.track = none',
      cure: 'alter role jeex_app reset pg_stat_statements.track',
      says: /^warning\npg_stat_statements.track is none: slow statements are not counted -> set it to top$/,
    },
    {
      check: 'extensions',
      harm: 'drop extension pg_stat_statements',
      cure: 'create extension pg_stat_statements schema stats',
      says: /^warning\npg_stat_statements is missing: slow statements are not counted -> put it into shared_preload/,
    },
    {
      check: 'extensions',
      harm: 'create schema elsewhere; alter extension pgcrypto set schema elsewhere',
      cure: 'alter extension pgcrypto set schema crypto; drop schema elsewhere',
      says: /^failed\npgcrypto is in the schema elsewhere, not crypto -> /,
    },
  ];
  for (const { check, harm, cure, says, by = admin } of BROKEN) {
    it(`sees in "${check}": ${harm}`, async () => {
      await by.query(harm);
      try {
        assert.match(told(named(await examined(), check)), says);
      } finally {
        await by.query(cure);
      }
      assert.equal(told(named(await examined(), check)), 'ok');
    });
  }

  const ENVIRONMENTS: readonly (readonly [string, Readonly<Record<string, string>>, RegExp])[] = [
    [
      'environment',
      { GRPC_LISTEN: '0.0.0.0:50051' },
      /^failed\nGRPC_LISTEN: expected a loopback address .* -> set it so/,
    ],
    ['environment', { MIGRATION_DATABASE_URL: '', MIGRATE: 'auto' }, /^failed\nMIGRATION_DATABASE_URL: expected a URL/],
    [
      'encryption keys',
      { ENCRYPTION_KEYS: `2:${'5e'.repeat(32)}` },
      /^failed\nthe key ring lacks key 1, .* -> add what/,
    ],
    [
      'encryption keys',
      { ENCRYPTION_KEYS: `1:${'6f'.repeat(32)}` },
      /^failed\nkey 1 .* is not the key 1 .* -> configure/,
    ],
    ["the owner's connection", { MIGRATION_DATABASE_URL: db.appUrl }, /^failed\nthe schema belongs to jeex_owner -> /],
    [
      "the owner's connection",
      { MIGRATION_DATABASE_URL: 'postgres://jeex_owner:wrong@127.0.0.1:1/jeex' },
      /^failed\n.*ECONN/,
    ],
    [
      "the listener's connection",
      { LISTEN_DATABASE_URL: db.adminUrl },
      /^failed\nit is not jeex_app -> name that role in LISTEN_DATABASE_URL/,
    ],
    [
      "the listener's connection",
      { LISTEN_DATABASE_URL: withDatabase(db.appUrl, 'postgres') },
      /^failed\nit leads to another database than DATABASE_URL -> name the same one/,
    ],
    [
      'connection',
      { PGBOUNCER_ADMIN_URL: 'postgres://jeex_monitor@127.0.0.1:1/pgbouncer' },
      /^warning\n.*goes past it/,
    ],
    ['PgBouncer', { PGBOUNCER_ADMIN_URL: 'postgres://jeex_monitor@127.0.0.1:1/pgbouncer' }, /^failed\n.*ECONNREFUSED/],
    [
      'arithmetic',
      { MAX_REPLICAS: '50' },
      /^failed\n.*50 × \(10 \+ 2\).* -> lower MAX_REPLICAS to \d+, or .* max_conn/,
    ],
    [
      'token keys',
      { AUTH_JWKS: '/nowhere/jwks.json', AUTH_ISSUER: 'nobody' },
      /^failed\nAUTH_JWKS: .*ENOENT.* -> make/,
    ],
    [
      "the service's role",
      { DATABASE_URL: db.adminUrl },
      /^failed\nit is a superuser -> set DATABASE_URL to the role jeex_app/,
    ],
  ];
  for (const [check, env, says] of ENVIRONMENTS) {
    it(`sees in "${check}": ${Object.keys(env)}=${check === 'arithmetic' ? env.MAX_REPLICAS : '…'}`, async () => {
      assert.match(told(named(await examined(env), check)), says);
    });
  }

  it('leaves out what needs a database that is not reached, and says so', async () => {
    const url = new URL(db.appUrl);
    url.password = 'wrong';
    const results = await examined({ DATABASE_URL: url.href });
    assert.match(
      told(named(results, 'connection')),
      /^failed\n127\.0\.0\.1:\d+ does not accept the password of the role jeex_app -> compare it with/,
    );
    assert.deepEqual(namesOf(results, 'failed'), ['connection']);
    assert.equal(named(results, 'row-level security').seen, 'the database is not reached');
  });

  it('looks at nothing else with an environment that it does not understand', async () => {
    const results = await examined({ POOL_SIZE: 'many' });
    assert.match(told(named(results, 'environment')), /^failed\nPOOL_SIZE: expected a whole number/);
    assert.deepEqual(namesOf(results, 'skipped').length, CHECKS.length - 1);
  });

  it('sees a database that sorts by the system’s library', async () => {
    await admin.query(`create database sorted template template0 locale_provider libc locale 'C'`);
    const url = withDatabase(db.appUrl, 'sorted');
    assert.match(told(named(await examined({ DATABASE_URL: url }), 'locale')), /^warning\nthe provider is not builtin/);
  });

  it('looks at the files of TLS, and at how long they last', async () => {
    const fits = await authority.issue({ dns: ['service.example'] });
    const soon = await authority.issue({ dns: ['service.example'], to: 10 });
    const late = await authority.issue({ dns: ['service.example'], from: -10, to: -1 });
    const { pathOf } = await useSecret({
      ...{ 'fits.crt': fits.cert, 'fits.key': fits.key, 'soon.crt': soon.cert, 'soon.key': soon.key },
      ...{ 'late.crt': late.cert, 'late.key': late.key },
    });
    const seen = async (cert: string, key = cert) => {
      const env = { TLS_CERT_FILE: pathOf(`${cert}.crt`), TLS_KEY_FILE: pathOf(`${key}.key`) };
      return told(named(await examined(env), 'TLS files'));
    };
    assert.equal(await seen('fits'), 'ok');
    assert.match(await seen('soon'), /^warning\nTLS_CERT_FILE: a certificate .* ends in (9|10) days -> put a new one/);
    assert.match(await seen('late'), /^failed\nTLS_CERT_FILE: a certificate .* ended on 2/);
    assert.match(await seen('fits', 'soon'), /^failed\nTLS_KEY_FILE: the key is not that of/);
  });

  it('sees whether the connection is encrypted, and the server verified', async () => {
    const { rows } = await admin.query('show data_directory');
    const cluster: string = rows[0].data_directory;
    const { cert, key } = await authority.issue({ usage: 'server' });
    const { uid, gid } = statSync(cluster);
    for (const [name, text] of Object.entries({ 'server.crt': cert, 'server.key': key })) {
      writeFileSync(join(cluster, name), text, { mode: 0o600 });
      chownSync(join(cluster, name), uid, gid);
    }
    await admin.query('alter system set ssl = on');
    await admin.query('select pg_reload_conf()');
    await until(async () => (await admin.query('show ssl')).rows[0].ssl === 'on', 'TLS is on');
    const { pathOf } = await useSecret({ 'ca.crt': authority.cert });
    const with13 = await examined({ DATABASE_URL: `${db.appUrl}?sslmode=verify-full&sslrootcert=${pathOf('ca.crt')}` });
    assert.deepEqual(
      [named(with13, 'TLS').status, named(with13, 'TLS').seen],
      ['ok', 'from here: TLSv1.3; into PostgreSQL: TLSv1.3'],
    );
    const blind = named(await examined({ DATABASE_URL: `${db.appUrl}?sslmode=no-verify` }), 'TLS');
    assert.match(told(blind), /^failed\nnobody verifies whom this connection reaches -> put sslmode=verify-full/);
  });
});
