import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import { after, suite, test } from 'node:test';
import { docker, must, output, ROOT } from './support/docker.ts';
import { lines, NO_DOCKER, type Stack, stackFile, useStack } from './support/stack.ts';

const SECRETS = '/run/secrets/jeex';
const LASTING = ['pgbouncer', 'pod', 'postgres', 'service'] as const;
const ENDING = ['secrets', 'migrate', 'demo', 'token', 'doctor', 'isolation-audit'];
const PASSWORDS = ['app', 'backup', 'monitor', 'owner', 'pooler', 'readonly'];

/** Each container's secrets. */
const SEEN: Readonly<Record<string, readonly string[]>> = {
  postgres: [...PASSWORDS.map((role) => `passwords/jeex_${role}`), 'tls/ca.crt', 'tls/tls.crt', 'tls/tls.key'],
  pgbouncer: ['passwords/jeex_monitor', 'passwords/jeex_pooler', 'tls/ca.crt', 'tls/tls.crt', 'tls/tls.key'],
  service: [
    ...['auth/jwks.json', 'encryption/keys', 'passwords/jeex_app', 'passwords/jeex_monitor'],
    ...['tls/ca.crt', 'tls/tls.crt', 'tls/tls.key'],
  ],
  migrate: ['passwords/jeex_owner', 'tls/ca.crt'],
  token: ['auth/jwks.json', 'auth/key.json', 'ca.crt'],
  demo: ['auth/jwks.json', 'auth/key.json', 'ca.crt'],
};
const PUBLIC = ['ca.crt', 'tls.crt', 'jwks.json'];

/** A copy of what this checkout would commit, and nothing else of it. */
const useCheckout = (): string => {
  const checkout = mkdtempSync(join(tmpdir(), 'jeex-checkout-'));
  after(() => rmSync(checkout, { recursive: true }));
  const list = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const files = execFileSync('git', list, { cwd: ROOT, encoding: 'utf8' }).split('\0');
  for (const file of files.filter((name) => name !== '' && existsSync(join(ROOT, name)))) {
    mkdirSync(dirname(join(checkout, file)), { recursive: true });
    cpSync(join(ROOT, file), join(checkout, file));
  }
  return checkout;
};

/** What `docker inspect` says of a container. */
interface Inspected {
  readonly Config: { readonly Labels: Readonly<Record<string, string>> };
  readonly State: { readonly Status: string; readonly ExitCode: number; readonly Health?: { readonly Status: string } };
  readonly HostConfig: {
    readonly Memory: number;
    readonly CpuQuota: number;
    readonly PidsLimit: number;
    readonly RestartPolicy: { readonly Name: string };
    readonly LogConfig: { readonly Config: Readonly<Record<string, string>> };
    readonly PortBindings: Readonly<Record<string, readonly { readonly HostIp: string }[]>> | null;
  };
}

/** What is labelled as the stack's: containers, volumes, networks. */
const belongings = async ({ project }: Stack): Promise<Record<'ps' | 'volume' | 'network', string[]>> => {
  const filter = ['--quiet', '--filter', `label=com.docker.compose.project=${project}`];
  return {
    ps: lines(await must(['ps', '--all', ...filter])),
    volume: lines(await must(['volume', 'ls', ...filter])),
    network: lines(await must(['network', 'ls', ...filter])),
  };
};

const inspect = async (stack: Stack): Promise<{ text: string; by: (service: string) => Inspected }> => {
  const text = await must(['inspect', ...(await belongings(stack)).ps]);
  const all: Inspected[] = JSON.parse(text);
  const by = (service: string): Inspected => {
    const found = all.find(({ Config }) => Config.Labels['com.docker.compose.service'] === service);
    assert.ok(found, `there is no ${service}`);
    return found;
  };
  return { text, by };
};

/** The part of a secret file that must not be seen elsewhere. */
const secretOf = (content: string): string => {
  if (content.startsWith('{')) return JSON.parse(content).d;
  const [first = '', second = ''] = lines(content);
  return first.startsWith('-----') ? second : first.replace(/^\d+:/, '');
};

suite('the composed stack, from a clean checkout', { skip: NO_DOCKER }, async () => {
  const checkout = useCheckout();
  const stack = await useStack({ checkout });
  const { project, compose, exec, query } = stack;
  const env = { GRPC_PORT: '0', HTTP_PORT: '0', JEEX_TAG: project };
  const plainly = (...args: string[]) => must(['compose', '-p', project, ...stackFile(checkout), ...args], { env });

  /** Runs a program in a container that goes on, or in a new one of the same kind. */
  const inside = (container: string, ...[program = '', ...args]: string[]) => {
    const running = LASTING.find((name) => name === container);
    return running
      ? exec(running, [program, ...args])
      : compose('run', '--rm', '--no-deps', '-T', '--entrypoint', program, container, ...args);
  };
  /** The files with a container's secrets, by their path below SECRETS. */
  const secretsOf = async (container: string): Promise<[path: string, content: string][]> => {
    const print = `cd ${SECRETS} && find * -type f | sort | while read file; do echo "$file $(base64 -w 0 "$file")"; done`;
    const printed = lines(output(await inside(container, 'sh', '-c', print)));
    return printed.map((line) => {
      const [path = '', content = ''] = line.split(' ');
      return [path, Buffer.from(content, 'base64').toString()];
    });
  };

  test('needs no variable to be set, and names none that is not', async () => {
    const unset = Object.fromEntries(
      ['GRPC_PORT', 'HTTP_PORT', 'JEEX_TAG', 'BASE_IMAGE', 'NODE_EXTRA_CA_CERTS'].map((name) => [name, undefined]),
    );
    const { code, err } = await docker(['compose', ...stackFile(checkout), 'config', '--quiet'], { env: unset });
    assert.deepEqual([code, err], [0, '']);
  });

  test('is healthy, with its one-shots done', async () => {
    const { by } = await inspect(stack);
    for (const name of LASTING) assert.equal(by(name).State.Status, 'running', name);
    for (const name of ['pgbouncer', 'postgres', 'service'])
      assert.equal(by(name).State.Health?.Status, 'healthy', name);
    for (const name of ['secrets', 'migrate'])
      assert.deepEqual([by(name).State.Status, by(name).State.ExitCode], ['exited', 0]);
  });

  test('runs any command of the migrator as the owner, besides the one of each start', async () => {
    const migrate = (...args: string[]) => compose('run', '--rm', '--no-deps', '-T', 'migrate', 'migrate', ...args);
    assert.match(output(await migrate('plan')), /nothing to do$/m);
    assert.match(output(await migrate('up', '--i-have-a-backup')), /^nothing to do: at \d+$/m);
  });

  test('plays the demo, and the doctor finds it well', async () => {
    assert.match(output(await compose('run', '--rm', '--no-deps', '-T', 'demo')), /^All \d+ facts hold/m);
    assert.match(output(await compose('run', '--rm', '--no-deps', '-T', 'doctor')), /^WELL: .* 0 failed/m);
  });

  test('looks at PostgreSQL past PgBouncer, as the monitor and over TLS', async () => {
    const sessions = await query(
      `select a.application_name as name, s.version from pg_stat_activity a join pg_stat_ssl s using (pid)
       where a.usename = 'jeex_monitor' and a.datname = 'jeex'`,
    );
    assert.deepEqual(sessions, [{ name: 'jeex-persistence monitor', version: 'TLSv1.3' }]);
  });

  test('shows its status page to whoever trusts its authority', async () => {
    const asked = get(`${stack.http}/`, { ca: stack.ca });
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    assert.equal(response.statusCode, 200);
    assert.match(await textOf(response), /<title>JEEX persistence<\/title>/);
  });

  test('keeps projects apart through PgBouncer too, by the proof of isolation', async () => {
    const audit = ['isolation-audit', '--load', '500', '--no-timings'];
    assert.match(output(await compose('run', '--rm', '--no-deps', '-T', ...audit)), /^ISOLATED: all \d+ checks hold/m);
  });

  test('has limits and a restart policy for all that goes on, and is reached from this machine alone', async () => {
    const { by } = await inspect(stack);
    for (const name of LASTING) {
      const { Memory, CpuQuota, PidsLimit, RestartPolicy, LogConfig } = by(name).HostConfig;
      assert.ok(Memory > 0 && CpuQuota > 0 && PidsLimit > 0, `${name} has no limits`);
      assert.deepEqual([RestartPolicy.Name, LogConfig.Config['max-size']], ['unless-stopped', '10m'], name);
    }
    const published = LASTING.flatMap((name) => Object.values(by(name).HostConfig.PortBindings ?? {}).flat());
    assert.deepEqual(
      published.map(({ HostIp }) => HostIp),
      ['127.0.0.1', '127.0.0.1'],
    );
  });

  for (const container of [...LASTING, ...ENDING]) {
    test(`${container} is nobody special, on a file system that it cannot write`, async () => {
      const pid = ENDING.includes(container) ? 'self' : '1';
      const { code, out, err } = await inside(container, 'sh', '-c', `cat /proc/${pid}/status && touch /opt/probe`);
      assert.match(out, /^Uid:(\s+[1-9]\d*){4}$/m);
      assert.match(out, /^CapEff:\s*0{16}$/m);
      assert.match(out, /^CapBnd:\s*0{16}$/m);
      assert.match(out, /^NoNewPrivs:\s*1$/m);
      assert.notEqual(code, 0);
      assert.match(err, /Read-only file system/);
    });
  }

  test('gives each container its own secrets, and shows none in a log or in what Docker tells', async () => {
    const { text } = await inspect(stack);
    const logs = await stack.logs();
    for (const [container, expected] of Object.entries(SEEN)) {
      const found = await secretsOf(container);
      assert.deepEqual(
        found.map(([path]) => path),
        expected,
        container,
      );
      for (const [path, content] of found.filter(([name]) => !PUBLIC.some((each) => name.endsWith(each)))) {
        const secret = secretOf(content);
        assert.ok(secret.length >= 40, `${path} of ${container} holds no secret`);
        assert.ok(!text.includes(secret) && !logs.includes(secret), `${path} of ${container} is shown`);
      }
    }
    assert.equal((await inside('pod', 'test', '-e', SECRETS)).code, 1);
  });

  for (const server of ['postgres:5432', 'localhost:6432']) {
    test(`${server} speaks TLS 1.3, and refuses TLS 1.2 and plaintext`, async () => {
      const handshake = (version: string) =>
        exec('probe', [
          ...['openssl', 's_client', '-starttls', 'postgres', '-connect', server, version],
          ...['-verify_return_error', '-CAfile', `${SECRETS}/tls/ca.crt`],
        ]);
      assert.match(output(await handshake('-tls1_3')), /^New, TLSv1.3,/m);
      const old = await handshake('-tls1_2');
      assert.notEqual(old.code, 0);
      assert.match(old.err, /alert protocol version/);

      const [host, port] = server.split(':');
      const select = (mode: string) =>
        exec('probe', [
          ...['bash', '-c', `PGPASSWORD=$(<${SECRETS}/passwords/jeex_app) exec "$@"`, '', 'psql', '--command=select 1'],
          `host=${host} port=${port} user=jeex_app dbname=jeex sslrootcert=${SECRETS}/tls/ca.crt sslmode=${mode}`,
        ]);
      assert.match(output(await select('verify-full')), /1 row/);
      const plain = await select('disable');
      assert.notEqual(plain.code, 0);
      assert.match(plain.err, /SSL required|no encryption/);
    });
  }

  test('the service refuses a server that another authority vouches for, and says so in a line', async () => {
    const other = '/etc/ssl/certs/ca-certificates.crt';
    const changed = {
      DATABASE_URL: `postgres://jeex_app@localhost:6432/jeex?sslmode=verify-full&sslrootcert=${other}`,
      GRPC_LISTEN: '127.0.0.1:0',
      HTTP_LISTEN: '127.0.0.1:0',
      HEALTH_LISTEN: '',
    };
    const variables = Object.entries(changed).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
    const { code, err } = await compose('run', '--rm', '--no-deps', '-T', ...variables, 'service');
    assert.equal(code, 1);
    const said = err.split('\n').filter((line) => line.startsWith('jeex-persistence: '));
    assert.equal(said.length, 1, err);
    assert.match(said[0] ?? '', /certificate of localhost:6432 .*authorities in sslrootcert \(\/etc\/ssl/);
  });

  test('makes a certificate anew that ends soon, and keeps the rest', async () => {
    const short = ['-CA', '/secrets/authority/ca.crt', '-CAkey', '/secrets/authority/ca.key', '-days', '2'];
    const files = ['-keyout', '/secrets/service/tls/tls.key', '-out', '/secrets/service/tls/tls.crt'];
    const request = ['req', '-x509', '-newkey', 'ed25519', '-noenc', '-subj', '/CN=short', ...short, ...files];
    output(await inside('secrets', 'openssl', ...request));
    const renewed = output(await compose('run', '--rm', '--no-deps', '-T', 'secrets'));
    const certificates = lines(renewed).filter((line) => line.startsWith('certificate'));
    assert.deepEqual(certificates, [
      'certificate of postgres: kept',
      'certificate of pgbouncer: kept',
      'certificate of service: new, for 90 days',
    ]);
    assert.match(output(await compose('run', '--rm', '--no-deps', '-T', 'secrets')), /of service: kept/);
  });

  test('stops cleanly, and has its data and secrets when it starts again', async () => {
    const state = async () => ({
      rows: await query(
        'select (select count(*) from jeex.changes) as changes, (select count(*) from jeex.users) as users',
      ),
      keys: output(await exec('service', ['sha256sum', `${SECRETS}/encryption/keys`, `${SECRETS}/passwords/jeex_app`])),
    });
    const before = await state();
    assert.ok(Number(before.rows[0]?.changes) > 0);
    await plainly('stop');
    const { by } = await inspect(stack);
    for (const name of ['postgres', 'pgbouncer', 'service']) assert.equal(by(name).State.ExitCode, 0, name);
    assert.match(await stack.logs('postgres'), /received fast shutdown request.*database system is shut down/s);
    await plainly('up', '--wait', '--no-build');
    assert.deepEqual(await state(), before);
  });

  test('leaves nothing when it is taken down', async () => {
    assert.equal((await belongings(stack)).volume.length, 7);
    output(await compose('rm', '--stop', '--force', 'probe'));
    await plainly('down', '--volumes');
    assert.deepEqual(await belongings(stack), { ps: [], volume: [], network: [] });
  });
});
