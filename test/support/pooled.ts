import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { GenericContainer, Network, PullPolicy, type StartedTestContainer, Wait } from 'testcontainers';
import { processStart } from '../../src/db/processes.ts';
import { LOGINS, type Login } from '../../src/db/role-table.ts';
import { withLogin } from '../../src/db/roles.ts';
import { createAuthority, type Issued } from './certificates.ts';
import { docker, must, show } from './docker.ts';
import type { TestPooler, TestServer } from './postgres.ts';
import { newProject, stackFile, starterOf } from './stack.ts';

/** PostgreSQL and PgBouncer as containers of their images, for tests of one run. */
export interface Pooled extends TestServer {
  readonly pooler: TestPooler;
  /** PgBouncer's console, as jeex_monitor. It speaks the simple protocol alone. */
  readonly consoleUrl: string;
  /** Removes both; again: nothing. */
  stop(): Promise<void>;
}

const TAG = process.env.JEEX_TAG ?? 'dev';
const POSTGRES_PORT = 5432;
const POOLER_PORT = 6432;
const SUPERUSER = 'tests';
/** Where the images look for what they are given. */
const SECRETS = '/run/secrets/jeex';
const CONFIGURATION = '/etc/jeex/postgres/conf.d';

/** What the suite needs otherwise than a deployment: databases of its own, many at once, and nothing that lasts. */
const SETTINGS = `
hba_file = '${CONFIGURATION}/hba'
max_connections = 400
fsync = off
synchronous_commit = off
full_page_writes = off
archive_mode = off
`;
const HBA = `
local   all postgres     peer
hostssl all all      all scram-sha-256
`;
const POOLER_ENVIRONMENT = { LISTEN_ADDR: '0.0.0.0', DATABASE_NAME: '*', MAX_CLIENT_CONN: '1000' };

/** A container as a deployment runs it, but for its ports, which this machine alone can reach. */
class Hardened extends GenericContainer {
  constructor(target: string, port: number) {
    super(`jeex-${target}:${TAG}`);
    this.withPullPolicy(PullPolicy.neverPull())
      .withDroppedCapabilities('ALL')
      .withSecurityOpt('no-new-privileges:true')
      .withExposedPorts(port)
      .withWaitStrategy(Wait.forHealthCheck());
    this.hostConfig.ReadonlyRootfs = true;
    this.hostConfig.PortBindings = { [`${port}/tcp`]: [{ HostIp: '127.0.0.1', HostPort: '0' }] };
    // The image's own check, which nobody has to wait for so long.
    this.createOpts.Healthcheck = { Interval: 500_000_000 };
  }
}

/** Builds the images of both, or takes what was built. @throws Error without Docker, or when the build fails */
export const buildImages = (): Promise<void> => show(['compose', ...stackFile(), 'build', 'postgres', 'pgbouncer']);

/**
 * Starts PostgreSQL and PgBouncer from the images, over TLS on both ways, with certificates and passwords of their own.
 * @throws Error with the containers' logs when one does not get ready
 */
export const startPooled = async (): Promise<Pooled> => {
  process.env.TESTCONTAINERS_RYUK_DISABLED = 'true';
  await removeLeftovers();
  const name = newProject();
  await using opened = new AsyncDisposableStack();
  const folder = join(tmpdir(), name);
  mkdirSync(folder, { mode: 0o700 });
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  const secrets = await writeSecrets(folder);

  const network = await new Network({ nextUuid: () => name }).start();
  opened.defer(async () => void (await network.stop()));
  const start = async (target: string, container: GenericContainer) => {
    const own = `${name}-${target}`;
    opened.defer(async () => void (await docker(['rm', '--force', '--volumes', own])));
    return await container
      .withName(own)
      .withNetwork(network)
      .withNetworkAliases(target)
      .start()
      .catch(async (error: Error) => {
        const { out, err } = await docker(['logs', own]);
        throw new Error(`${own} does not start: ${error.message}\n${out}${err}`, { cause: error });
      });
  };
  const mounts = (target: string) => [{ source: join(folder, target), target: SECRETS, mode: 'ro' as const }];

  const postgres = await start(
    'postgres',
    new Hardened('postgres', POSTGRES_PORT)
      .withBindMounts([...mounts('postgres'), { source: join(folder, 'conf.d'), target: CONFIGURATION, mode: 'ro' }])
      .withTmpFs({ '/tmp': 'mode=1777', '/run/postgresql': 'mode=0755,uid=10001,gid=10001' })
      .withResourcesQuota({ memory: 2 }),
  );
  const password = randomBytes(24).toString('hex');
  const role = `create role ${SUPERUSER} superuser login password '${password}'`;
  const made = await postgres.exec(['psql', '--no-psqlrc', '--command', role]);
  if (made.exitCode !== 0) throw new Error(`the superuser of the tests cannot be made: ${made.output}`);
  const pgbouncer = await start(
    'pgbouncer',
    new Hardened('pgbouncer', POOLER_PORT)
      .withBindMounts(mounts('pgbouncer'))
      .withEnvironment(POOLER_ENVIRONMENT)
      .withTmpFs({ '/tmp': 'mode=1777', '/run/pgbouncer': 'mode=0700,uid=10002,gid=10002' }),
  );

  const urlOf = (container: StartedTestContainer, port: number) => {
    const url = new URL(`postgres://127.0.0.1:${container.getMappedPort(port)}`);
    url.search = `${new URLSearchParams({ sslmode: 'verify-full', sslrootcert: join(folder, 'postgres/tls/ca.crt') })}`;
    return url.href;
  };
  const poolerUrl = urlOf(pgbouncer, POOLER_PORT);
  const closing = opened.move();
  return {
    adminUrl: withLogin(urlOf(postgres, POSTGRES_PORT), 'postgres', SUPERUSER, password),
    passwords: secrets.passwords,
    pooler: { url: poolerUrl, certificate: secrets.proxy },
    consoleUrl: withLogin(poolerUrl, 'pgbouncer', 'jeex_monitor', secrets.passwords.monitor),
    stop: () => closing.disposeAsync(),
  };
};

/** Writes what each container is given, each into a directory of its own that may be mounted into it. */
export const writeSecrets = async (folder: string) => {
  const authority = await createAuthority('Authority of the tests');
  const passwords = Object.fromEntries(LOGINS.map((login) => [login, randomBytes(24).toString('hex')])) as Record<
    Login,
    string
  >;
  const put = (path: string, text: string) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  const give = ({ cert, key }: Issued, target: string, logins: readonly Login[]) => {
    const tls = { 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.cert };
    for (const [name, text] of Object.entries(tls)) put(`${target}/tls/${name}`, text);
    for (const login of logins) put(`${target}/passwords/jeex_${login}`, passwords[login]);
  };
  give(await authority.issue({ usage: 'server', dns: ['postgres'] }), 'postgres', LOGINS);
  give(await authority.issue({ usage: 'server', dns: ['localhost'] }), 'pgbouncer', ['pooler', 'monitor']);
  put('conf.d/tests.conf', SETTINGS);
  put('conf.d/hba', HBA);
  // Each container's user can read what is mounted; here the folder above keeps others out.
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    chmodSync(join(entry.parentPath, entry.name), entry.isDirectory() ? 0o755 : 0o644);
  }
  return { authority, passwords, proxy: await authority.issue({ usage: 'server' }) };
};

/** Whether a container, a network or a folder is of a run of this machine that has ended, and was killed therefore. */
const isLeft = (name: string): boolean => {
  const starter = starterOf(name);
  return starter !== null && processStart(starter) === null;
};

/** Removes what such runs have left. */
export const removeLeftovers = async (): Promise<void> => {
  const remove = async (list: readonly string[], removal: readonly string[]) => {
    const left = (await must(list)).split('\n').filter(isLeft);
    // Another run may remove the same.
    if (left.length > 0) await docker([...removal, ...left]);
  };
  await remove(['ps', '--all', '--format', '{{.Names}}'], ['rm', '--force', '--volumes']);
  await remove(['network', 'ls', '--format', '{{.Name}}'], ['network', 'rm']);
  for (const name of readdirSync(tmpdir()).filter(isLeft))
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
};
