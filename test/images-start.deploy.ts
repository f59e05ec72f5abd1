import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createAuthority } from './support/certificates.ts';
import {
  ask,
  type Container,
  makeNetwork,
  makeSecrets,
  type Secrets,
  startContainer,
  TAG,
} from './support/container.ts';
import { docker, must } from './support/docker.ts';
import { NO_DOCKER } from './support/stack.ts';

const MEMORY = ['--memory=512m', '--memory-swap=512m'];
const DATA = '/var/lib/postgresql';

/** Something that keeps a container from starting. */
interface Fault {
  readonly name: string;
  /** What it says last. */
  readonly says: RegExp;
  /** Spoils its secrets, or makes what is mounted. */
  readonly spoil?: (secrets: Secrets) => void;
  /** Further options of `docker run`, which come last. */
  readonly options?: (secrets: Secrets) => readonly string[];
}

const POSTGRES: readonly Fault[] = [
  {
    name: 'a password file is missing',
    says: /the file .*jeex_owner is missing: mount the secret/,
    spoil: ({ file }) => rmSync(file('postgres/passwords/jeex_owner')),
  },
  {
    name: 'a password is too short',
    says: /the bootstrap failed: .*expected 12 to 200 printable ASCII characters in .*jeex_app/,
    spoil: ({ file }) => writeFileSync(file('postgres/passwords/jeex_app'), 'short'),
  },
  {
    name: 'the key cannot be read',
    says: /tls\.key cannot be read by uid 10001: let group 10000 read it/,
    spoil: ({ file }) => chmodSync(file('postgres/tls/tls.key'), 0o600),
  },
  {
    name: 'the key is another certificate’s',
    says: /tls\.key is not the key of .*tls\.crt/,
    spoil: ({ file }) => copyFileSync(file('pgbouncer/tls/tls.key'), file('postgres/tls/tls.key')),
  },
  {
    name: 'the volume is somebody else’s',
    says: /the volume at \/var\/lib\/postgresql cannot be written by uid 10001: chown it/,
    spoil: ({ file }) => mkdirSync(file('data'), { mode: 0o755 }),
    options: ({ file }) => [`--volume=${file('data')}:${DATA}`],
  },
  {
    name: 'the volume holds data of another major version',
    says: /17\/docker holds data of PostgreSQL 17, and this is 18: dump it/,
    spoil: ({ file }) => {
      const version = file('data/17/docker/PG_VERSION');
      mkdirSync(dirname(version), { recursive: true });
      writeFileSync(version, '17\n');
      for (const part of ['data', 'data/17', 'data/17/docker']) chmodSync(file(part), 0o777);
    },
    options: ({ file }) => [`--volume=${file('data')}:${DATA}`],
  },
  {
    name: 'a setting does not exist',
    says: /the configuration is wrong: mend the file/,
    spoil: ({ file }) => writeFileSync(file('conf.d/tests.conf'), 'max_connectionz = 1\n'),
    options: ({ file }) => [`--volume=${file('conf.d')}:/etc/jeex/postgres/conf.d:ro`],
  },
  {
    name: 'memory does not suffice',
    says: /the memory limit is 128 MiB: give the container at least 256 MiB/,
    options: () => ['--memory=128m', '--memory-swap=128m'],
  },
  { name: 'it runs as another user', says: /it runs as uid 4711: run it as uid 10001/, options: () => ['--user=4711'] },
];

const PGBOUNCER: readonly Fault[] = [
  {
    name: 'a password file is missing',
    says: /the file .*jeex_pooler is missing: mount the secret/,
    spoil: ({ file }) => rmSync(file('pgbouncer/passwords/jeex_pooler')),
  },
  {
    name: 'the key is another certificate’s',
    says: /TLS setup failed/,
    spoil: ({ file }) => copyFileSync(file('postgres/tls/tls.key'), file('pgbouncer/tls/tls.key')),
  },
  ...[
    ['DEFAULT_POOL_SIZE', '20\nadmin_users = jeex_app', /DEFAULT_POOL_SIZE: expected a whole number from 1 to 10000/],
    ['LISTEN_PORT', '65536', /LISTEN_PORT: expected a whole number from 1 to 65535/],
    ['DATABASE_HOST', 'postgres user=postgres', /DATABASE_HOST: expected one host name or address/],
    ['DATABASE_NAME', 'jeex]\n[users', /DATABASE_NAME: expected a lower-case name/],
  ].map(([name, value, says]) => ({
    name: `${name} is wrong`,
    says: says as RegExp,
    options: () => [`--env=${name}=${value}`],
  })),
];

const FAULTS = { postgres: POSTGRES, pgbouncer: PGBOUNCER };

describe('a start that fails', { skip: NO_DOCKER }, () => {
  for (const target of ['postgres', 'pgbouncer'] as const) {
    for (const { name, says, spoil, options } of FAULTS[target]) {
      it(`of ${target} says why and ends with an error when ${name}`, async () => {
        await using opened = new AsyncDisposableStack();
        const secrets = await makeSecrets(opened);
        spoil?.(secrets);
        const given = { secrets: secrets.file(target), options: [...MEMORY, ...(options?.(secrets) ?? [])] };
        const { code, last } = await (await startContainer(opened, target, given)).ended();
        assert.match(last, says);
        assert.notEqual(code, 0);
      });
    }
  }

  it('of PgBouncer’s connection names the certificate that it does not trust', async () => {
    await using opened = new AsyncDisposableStack();
    const [secrets, network] = [await makeSecrets(opened), await makeNetwork(opened)];
    const another = await createAuthority('Another authority');
    writeFileSync(secrets.file('pgbouncer/tls/ca.crt'), another.cert);
    const joined = [`--network=${network}`, '--network-alias=postgres'];
    const postgres = await startContainer(opened, 'postgres', {
      secrets: secrets.file('postgres'),
      options: [...MEMORY, ...joined],
    });
    const options = [`--network=${network}`];
    const pgbouncer = await startContainer(opened, 'pgbouncer', { secrets: secrets.file('pgbouncer'), options });
    await Promise.all([postgres.healthy(), pgbouncer.healthy()]);
    const login = 'host=127.0.0.1 port=6432 user=jeex_app dbname=jeex sslmode=require connect_timeout=2';
    const beside = [
      `--network=container:${pgbouncer.id}`,
      '--entrypoint=psql',
      `jeex-postgres:${TAG}`,
      '-Xc',
      'select',
      login,
    ];
    assert.notEqual((await docker(['run', '--rm', ...beside])).code, 0);
    await pgbouncer.says(/certificate verify failed/);
  });
});

describe('PostgreSQL', { skip: NO_DOCKER }, () => {
  const start = async (opened: AsyncDisposableStack): Promise<Container> => {
    const secrets = await makeSecrets(opened);
    return await startContainer(opened, 'postgres', { secrets: secrets.file('postgres'), options: MEMORY });
  };
  const roles = (container: Container) => ask(container, "select count(*) from pg_roles where rolname like 'jeex%'");
  /** Kills it without a chance to end, and starts it again. */
  const killed = async ({ id, healthy }: Container): Promise<void> => {
    await must(['kill', id]);
    await must(['start', id]);
    await healthy();
  };

  for (const phase of ['making a cluster', 'preparing roles']) {
    it(`goes on where it was killed: ${phase}`, async () => {
      await using opened = new AsyncDisposableStack();
      const postgres = await start(opened);
      await postgres.says(new RegExp(phase));
      await killed(postgres);
      assert.equal(await roles(postgres), '7');
    });
  }

  it('starts where a container that was killed has left its socket locked', async () => {
    await using opened = new AsyncDisposableStack();
    const secrets = await makeSecrets(opened);
    const run = secrets.file('run');
    mkdirSync(run);
    chmodSync(run, 0o777);
    // The process it names lives, as one does that has the same number by chance: --init puts another one before.
    writeFileSync(`${run}/.s.PGSQL.5432.lock`, `1\n${DATA}/18/docker\n0\n5432\n/run/postgresql\n`);
    const given = { secrets: secrets.file('postgres'), run, options: [...MEMORY, '--init'] };
    await (await startContainer(opened, 'postgres', given)).healthy();
  });

  const opened = new AsyncDisposableStack();
  after(() => opened.disposeAsync());
  let postgres: Container;
  before(async () => {
    postgres = await start(opened);
    await postgres.healthy();
  });

  it('has what was committed after a crash, and is prepared once', async () => {
    await ask(postgres, 'create table public.kept as select 1 as n');
    await killed(postgres);
    assert.equal(await ask(postgres, 'select n from public.kept'), '1');
    assert.equal((await postgres.log()).match(/preparing roles/g)?.length, 1);
  });

  it('refuses the data that another container uses', async () => {
    const secrets = await makeSecrets(opened);
    const options = [...MEMORY, `--volumes-from=${postgres.id}`];
    const second = await startContainer(opened, 'postgres', { secrets: secrets.file('postgres'), options });
    assert.match((await second.ended()).last, /another container uses the data/);
    assert.equal(await roles(postgres), '7');
  });

  it('goes on when something dies that a probe or a visitor has left behind', async () => {
    const from = (await postgres.log()).length;
    const orphan = (await postgres.exec('bash', '-c', 'sleep 600 >/dev/null 2>&1 & echo $!')).out.trim();
    await postgres.exec('bash', '-c', `kill -KILL ${orphan}`);
    await ask(postgres, 'select pg_reload_conf()');
    await postgres.says(/reloading configuration files/, from);
    assert.doesNotMatch((await postgres.log()).slice(from), /untracked child|reinitializing/);
  });

  it('joins in parallel beyond the shared memory that Docker gives', async () => {
    await ask(
      postgres,
      "create table public.wide as select n, repeat('x', 100) as pad from generate_series(1, 700000) n",
    );
    const forced = `set work_mem = '256MB'; set enable_mergejoin = off; set enable_nestloop = off;
      set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;`;
    const join = 'select count(*) from public.wide a join public.wide b using (n, pad)';
    assert.match(await ask(postgres, `${forced} explain (costs off) ${join}`), /Parallel Hash/);
    assert.equal(await ask(postgres, `${forced} ${join}`), '700000');
  });
});
