import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { openClient } from '../src/db/connection.ts';
import { drift } from '../src/migrator/drift.ts';
import { latestVersion, MIGRATIONS, number, SCHEMA_FILE } from '../src/migrator/files.ts';
import { MIGRATOR_TABLES } from '../src/migrator/history.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { ask, type Container, makeSecrets, startContainer } from './support/container.ts';
import { docker, output } from './support/docker.ts';
import { PUT_BACK_OTHERWISE } from './support/put-back.ts';
import { NO_DOCKER } from './support/stack.ts';

/** A dump's lines that would otherwise differ each time: the key that psql's `\restrict` takes. */
const FIXED = '--restrict-key=jeex';
const WITHOUT_MIGRATOR = MIGRATOR_TABLES.map((table) => `--exclude-table=jeex.${table}`);

suite("the service's own migrations by PostgreSQL's pg_dump", { skip: NO_DOCKER }, () => {
  const opened = new AsyncDisposableStack();
  after(() => opened.disposeAsync());
  let postgres: Container;
  let url: string;
  before(async () => {
    const secrets = await makeSecrets(opened);
    postgres = await startContainer(opened, 'postgres', {
      secrets: secrets.file('postgres'),
      options: ['--memory=512m'],
    });
    await postgres.healthy();
    const ca = encodeURIComponent(secrets.file('postgres/tls/ca.crt'));
    const login = `jeex_owner:${secrets.passwords.owner}`;
    url = `postgres://${login}@127.0.0.1:${await postgres.port()}/jeex?sslmode=verify-full&sslrootcert=${ca}`;
  });

  const dump = async (...options: readonly string[]): Promise<string> =>
    output(await postgres.exec('pg_dump', '--schema-only', '--schema=jeex', FIXED, ...options));
  /** Runs a script in a database as its superuser. */
  const run = async (database: string, script: string): Promise<void> => {
    const psql = ['psql', '-Xq', '--set=ON_ERROR_STOP=1', `--dbname=${database}`];
    output(await docker(['exec', '--interactive', postgres.id, ...psql], { input: script }));
  };

  test('leave nothing when all are undone, and make the same byte for byte when they are applied again', async () => {
    const fresh = await dump('jeex');
    await up(url);
    const migrated = await dump('jeex');
    await down(url, 0);
    assert.equal(await dump('jeex', ...WITHOUT_MIGRATOR), fresh);
    await up(url);
    assert.equal(await dump('jeex'), migrated);
  });

  test('are the same when each alone was done, undone and done again', async () => {
    await down(url, 0);
    for (let version = 1; version <= latestVersion(); version += 1) {
      const undone = await dump('jeex');
      await up(url, { to: version });
      const done = await dump('jeex');
      await down(url, version - 1);
      const but = PUT_BACK_OTHERWISE[version]?.name;
      const rest = (dumped: string) =>
        granted(dumped).filter((part) => but === undefined || !part.startsWith(`--\n-- Name: ${but}(`));
      assert.deepEqual(rest(await dump('jeex')), rest(undone), `${number(version)} undone`);
      await up(url, { to: version });
      assert.deepEqual(granted(await dump('jeex')), granted(done), `${number(version)} done again`);
    }
  });

  test('make what the declared schema makes', async () => {
    await down(url, 0);
    await ask(postgres, 'create database declared owner jeex_owner template jeex', 'postgres');
    await up(url);
    const declared = readFileSync(join(MIGRATIONS, SCHEMA_FILE), 'utf8');
    await run(
      'declared',
      `set session authorization jeex_owner; set search_path = jeex; begin;\n${declared}\n; commit`,
    );
    assert.deepEqual(
      granted(await dump('declared', ...WITHOUT_MIGRATOR)),
      granted(await dump('jeex', ...WITHOUT_MIGRATOR)),
    );
  });

  test('are not taken for tampered with in a restored dump', async () => {
    const dumped = output(await postgres.exec('pg_dump', FIXED, 'jeex'));
    await ask(postgres, 'create database restored owner jeex_owner template template0', 'postgres');
    await run('restored', dumped);
    // Only a database of this name is open to the migrator's role.
    await ask(postgres, 'alter database jeex rename to original', 'postgres');
    await ask(postgres, 'alter database restored rename to jeex', 'postgres');
    const client = await openClient(url, 'test');
    try {
      assert.deepEqual(await drift(client), { compared: true, problems: [] });
    } finally {
      await client.end();
    }
  });
});

/** A dump's parts, one for each object, whatever the order in which rights were granted. */
const granted = (dumped: string): readonly string[] =>
  dumped
    .split(/^(?=--\n-- Name: )/m)
    .map((part) => (part.includes('; Type: ACL; ') ? part.split('\n').sort().join('\n') : part));
