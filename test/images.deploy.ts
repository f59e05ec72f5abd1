import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { Client, type ClientConfig } from 'pg';
import { requireBackup } from '../src/migrator/backup.ts';
import { ask, type Container, makeNetwork, makeSecrets, type Secrets, startContainer } from './support/container.ts';
import { must } from './support/docker.ts';
import { NO_DOCKER } from './support/stack.ts';
import { until } from './support/until.ts';

const MIB = 1024 * 1024;
const MEMORY = ['--memory=512m', '--memory-swap=512m'];

/** Logs in, asks one thing, and leaves. @throws Error as the server or TLS says */
const query = async (config: ClientConfig, sql: string): Promise<readonly Readonly<Record<string, unknown>>[]> => {
  const client = new Client({ host: '127.0.0.1', database: 'jeex', connectionTimeoutMillis: 10_000, ...config });
  client.on('error', () => {});
  try {
    await client.connect();
    return (await client.query(sql)).rows;
  } finally {
    await client.end().catch(() => {});
  }
};

const verified = ({ authority }: Secrets, servername: string) =>
  ({ ca: authority.cert, servername, minVersion: 'TLSv1.3' }) as const;

describe('the images of PostgreSQL and PgBouncer', { skip: NO_DOCKER }, () => {
  const opened = new AsyncDisposableStack();
  after(() => opened.disposeAsync());
  let secrets: Secrets;
  let postgres: Container;
  let pgbouncer: Container;
  before(async () => {
    secrets = await makeSecrets(opened);
    const network = await makeNetwork(opened);
    const joined = (alias: string) => [`--network=${network}`, `--network-alias=${alias}`];
    postgres = await startContainer(opened, 'postgres', {
      secrets: secrets.file('postgres'),
      options: [...MEMORY, ...joined('postgres')],
    });
    pgbouncer = await startContainer(opened, 'pgbouncer', {
      secrets: secrets.file('pgbouncer'),
      options: ['--env=LISTEN_ADDR=0.0.0.0', ...joined('pgbouncer')],
    });
    await Promise.all([postgres.healthy(), pgbouncer.healthy()]);
  });

  const to = async (container: Container, login: keyof Secrets['passwords']): Promise<ClientConfig> => ({
    port: await container.port(),
    user: `jeex_${login}`,
    password: secrets.passwords[login],
    ssl: verified(secrets, container === postgres ? 'postgres' : 'localhost'),
  });
  const both = (): [string, Container][] => [
    ['postgres', postgres],
    ['pgbouncer', pgbouncer],
  ];

  it('run as nobody special: no root, no capabilities, nothing to write but what they need', async () => {
    for (const [name, container] of both()) {
      const { out } = await container.exec('cat', '/proc/1/status');
      assert.match(out, /^Uid:\t1000[12]\t/m, name);
      assert.match(out, /^CapEff:\t0{16}$/m, name);
      assert.match(out, /^NoNewPrivs:\t1$/m, name);
      assert.notEqual((await container.exec('touch', '/etc/jeex/x')).code, 0, name);
      const labels = JSON.parse(await must(['inspect', '--format={{json .Config.Labels}}', container.id]));
      assert.equal(labels['org.opencontainers.image.title'], `jeex-${name}`);
    }
  });

  it('speak TLS 1.3, and refuse TLS 1.2 and plaintext', async () => {
    for (const [name, container] of both()) {
      const app = await to(container, 'app');
      assert.deepEqual(await query(app, 'select current_user::text as me'), [{ me: 'jeex_app' }], name);
      await assert.rejects(query({ ...app, ssl: false }, 'select'), /no encryption|SSL required/, name);
      const old = { ...verified(secrets, 'localhost'), minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as const;
      await assert.rejects(query({ ...app, ssl: old }, 'select'), /alert protocol version/, name);
    }
  });

  it('let each role in with the password of its file, to its own database alone', async () => {
    for (const login of ['owner', 'app', 'readonly', 'monitor', 'backup', 'pooler'] as const) {
      const config = await to(postgres, login);
      assert.deepEqual(await query(config, 'select current_user::text as me'), [{ me: `jeex_${login}` }]);
      await assert.rejects(query({ ...config, database: 'postgres' }, 'select'), /pg_hba\.conf rejects/, login);
      await assert.rejects(
        query({ ...config, password: 'a wrong password' }, 'select'),
        /authentication failed/,
        login,
      );
    }
  });

  it('let the superuser in by the socket, without a password, and not over the network', async () => {
    assert.equal(await ask(postgres, "select rolpassword is null from pg_authid where rolname = 'postgres'"), 't');
    for (const database of ['jeex', 'postgres']) {
      const config = { ...(await to(postgres, 'app')), user: 'postgres', database };
      await assert.rejects(query(config, 'select'), /pg_hba\.conf rejects/, database);
    }
  });

  it('let the service through the pooler, the monitor to its console, and nobody else', async () => {
    const [app, monitor] = [await to(pgbouncer, 'app'), await to(pgbouncer, 'monitor')];
    const pools = await query({ ...monitor, database: 'pgbouncer' }, 'show pools');
    assert.ok(pools.some(({ user, pool_mode }) => user === 'jeex_app' && pool_mode === 'transaction'));
    const refused: [string, ClientConfig][] = [
      ['a wrong password', { ...app, password: 'a wrong password' }],
      ['the app at the console', { ...app, database: 'pgbouncer' }],
      ['the monitor at the database', monitor],
      ['the pooler’s own role', await to(pgbouncer, 'pooler')],
      ['the owner', await to(pgbouncer, 'owner')],
    ];
    for (const [who, config] of refused) await assert.rejects(query(config, 'select'), who);
  });

  it('have checksums, a locale of their own, and WAL that is ready to be archived', async () => {
    const settings = {
      server_version_num: /^18/,
      data_checksums: /^on$/,
      wal_level: /^replica$/,
      archive_mode: /^on$/,
      ssl_min_protocol_version: /^TLSv1\.3$/,
      log_error_verbosity: /^terse$/,
      shared_preload_libraries: /^pgaudit, pg_stat_statements, auto_explain$/,
    };
    const asked = Object.keys(settings).map((name) => `'${name}', current_setting('${name}')`);
    const found = JSON.parse(await ask(postgres, `select json_build_object(${asked})`));
    for (const [name, expected] of Object.entries(settings)) assert.match(found[name], expected, name);
    const locale = await ask(postgres, "select datlocprovider, datlocale from pg_database where datname = 'jeex'");
    assert.equal(locale, 'b|C.UTF-8');
  });

  it('keep it on record when a base backup has ended, which the migrator asks for before data is lost', async () => {
    const owner = new Client({ host: '127.0.0.1', database: 'jeex', ...(await to(postgres, 'owner')) });
    await owner.connect();
    const asked = () =>
      requireBackup(owner, {
        destructive: [{ version: 1, name: 'a', reason: 'b' }],
        haveBackup: false,
        embedded: false,
      });
    try {
      await owner.query('create table jeex.something as select 1 as n');
      await assert.rejects(asked(), /no record of a base backup/);
      await query(await to(postgres, 'backup'), `select pg_backup_start('test', true); select pg_backup_stop()`);
      await asked();
      await owner.query('drop table jeex.something');
    } finally {
      await owner.end();
    }
  });

  it('put on record what is read around the service, without its content', async () => {
    const from = (await postgres.log()).length;
    await query(await to(postgres, 'readonly'), "select 'a word of a document' as said");
    await postgres.says(/jeex_readonly@jeex .*AUDIT: SESSION,1,1,READ,SELECT/, from);
    assert.doesNotMatch(await postgres.log(), /a word of a document/);
  });

  it('take their memory from the container’s limit', async () => {
    const sizes = async () =>
      JSON.parse(
        await ask(
          postgres,
          'select json_object_agg(name, pg_size_bytes(current_setting(name))) from ' +
            "unnest('{shared_buffers, effective_cache_size, work_mem}'::text[]) as name",
        ),
      );
    assert.deepEqual(await sizes(), {
      shared_buffers: 128 * MIB,
      effective_cache_size: 358 * MIB,
      work_mem: 1310 * 1024,
    });
    await must(['update', '--memory=2g', '--memory-swap=2g', postgres.id]);
    await must(['restart', postgres.id]);
    await postgres.healthy();
    assert.deepEqual(await sizes(), {
      shared_buffers: 512 * MIB,
      effective_cache_size: 1433 * MIB,
      work_mem: 5242 * 1024,
    });
  });

  it('take new passwords at the next start, the pooler at once', async () => {
    const put = (name: string, password: string) =>
      writeFileSync(secrets.file(`${name}/passwords/jeex_monitor`), password);
    const earlier = await to(postgres, 'monitor');
    secrets.passwords.monitor = 'another password';
    put('postgres', 'another password');
    put('pgbouncer', 'another password');
    await must(['restart', postgres.id]);
    await postgres.healthy();
    await query({ ...(await to(postgres, 'monitor')) }, 'select');
    await assert.rejects(query({ ...earlier, port: await postgres.port() }, 'select'), /authentication failed/);
    const console = { ...(await to(pgbouncer, 'monitor')), database: 'pgbouncer' };
    await until(
      () =>
        query(console, 'show version').then(
          () => true,
          () => false,
        ),
      'the console takes the password',
    );
  });

  it('take a new certificate without a restart, and keep theirs until the pair is whole', async () => {
    const renew = async ([name, container]: [string, Container]) => {
      const put = (file: string, text: string) => writeFileSync(secrets.file(`${name}/tls/${file}`), text);
      const renewed = await secrets.authority.issue({ usage: 'server', dns: ['postgres', 'localhost', 'renewed'] });
      const from = (await container.log()).length;
      put('tls.crt', renewed.cert);
      await container.says(/key values mismatch/, from);
      const app = await to(container, 'app');
      await query(app, 'select');
      put('tls.key', renewed.key);
      const expecting = { ...app, ssl: verified(secrets, 'renewed') };
      const shown = () =>
        query(expecting, 'select').then(
          () => true,
          () => false,
        );
      await until(shown, `${name} shows the new certificate`);
    };
    await Promise.all(both().map(renew));
  });
});
