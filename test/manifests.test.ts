import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { parse } from 'yaml';
import { loadConfig } from '../src/config.ts';
import { connectionString, readPassword } from '../src/db/connection.ts';
import { LOGINS } from '../src/db/role-table.ts';
import { createHealth } from '../src/rpc/health.ts';
import { loadRing } from '../src/sealing/ring.ts';
import { SERVICES } from '../src/service.ts';
import { VERSION } from '../src/version.ts';
import { parseConf } from './support/image-files.ts';
import { CHECKS } from './support/manifest-checks.ts';
import { type Contents, checkReferences, LINK_CHECKS } from './support/manifest-links.ts';
import type { Manifest, ManifestOf } from './support/manifest-types.ts';
import { containerOf, envOf, faultsOf, find, K8S, readFolder } from './support/manifests.ts';

const base = readFolder('base');
const folder = mkdtempSync(join(tmpdir(), 'jeex-manifests-'));
after(() => rmSync(folder, { recursive: true }));

suite('the manifests of Kubernetes', () => {
  for (const name of ['base', 'overlays/dev', 'overlays/production', 'overlays/ha']) {
    test(`${name} holds objects that fit their kinds, field by field`, () => {
      const manifests = readFolder(name);
      assert.ok(manifests.length > 1);
      assert.deepEqual(manifests.flatMap(faultsOf), []);
    });
  }

  for (const [name, check] of Object.entries({ ...CHECKS, ...LINK_CHECKS })) test(name, () => check(base));

  const wrong: [string, (copy: ManifestOf<'Deployment'>) => unknown][] = [
    ['an unknown field', ({ spec }) => Object.assign(spec.template.spec, { terminationGraceSeconds: 1 })],
    ['a wrong type', ({ spec }) => Object.assign(spec.template.spec.containers[0] ?? {}, { image: 1 })],
    ['a missing field', ({ spec }) => Reflect.deleteProperty(spec, 'selector')],
    ['an unknown kind', (copy) => Object.assign(copy, { kind: 'Deploiment' })],
  ];
  for (const [what, change] of wrong) {
    test(`${what} is a fault, and the only one`, () => {
      const copy = structuredClone(find(base, 'Deployment', 'jeex-persistence'));
      change(copy);
      assert.equal(faultsOf(copy as Manifest).length, 1);
    });
  }
});

suite('the probes of Kubernetes', () => {
  test('ask for names that the health service answers: liveness always, readiness with the database', async () => {
    const health = createHealth(SERVICES.map(({ typeName }) => typeName));
    const server = new Server();
    health.addTo(server);
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
    const { startupProbe, livenessProbe, readinessProbe } = containerOf(base, 'service');
    const answers = async (): Promise<string[]> => {
      const asked = [startupProbe, livenessProbe, readinessProbe].map((probe) => probe?.grpc?.service ?? '');
      return Promise.all(asked.map((service) => check(client, service)));
    };
    try {
      assert.deepEqual(await answers(), ['SERVING', 'SERVING', 'NOT_SERVING']);
      health.setReady(true);
      assert.deepEqual(await answers(), ['SERVING', 'SERVING', 'SERVING']);
      health.drain();
      assert.deepEqual(await answers(), ['SERVING', 'SERVING', 'NOT_SERVING']);
    } finally {
      client.close();
      server.forceShutdown();
    }
  });
});

/** The answer of `grpc.health.v1.Health/Check`; a name that is unknown rejects. */
const check = (client: Client, service: string): Promise<string> =>
  new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      (name: string) => Buffer.concat([Buffer.from([10, name.length]), Buffer.from(name)]),
      (answer: Buffer) => answer.at(-1),
      service,
      (error, status) => (error ? reject(error) : resolve(status === 1 ? 'SERVING' : 'NOT_SERVING')),
    );
  });

test('the images of the overlays are those of this release', () => {
  for (const overlay of ['production', 'ha']) {
    const { images } = parse(readFileSync(new URL(`overlays/${overlay}/kustomization.yaml`, K8S), 'utf8')) as {
      images: readonly { name: string; newTag: string }[];
    };
    assert.ok(images.length > 0);
    for (const { name, newTag } of images) assert.equal(newTag, VERSION, `${overlay}: ${name}`);
  }
});

suite('secrets.sh', () => {
  const made = makeSecrets();

  test('makes what the manifests name', () => {
    const contents: Contents = Object.fromEntries(
      Object.entries(made.files).map(([name, files]) => [name, Object.keys(files)]),
    );
    checkReferences(base, contents);
  });

  test('makes passwords and keys that the service takes, each another', async () => {
    const passwords = made.files['secret/jeex-passwords'] ?? {};
    assert.deepEqual(Object.keys(passwords).sort(), LOGINS.map((login) => `jeex_${login}`).sort());
    for (const [role, password] of Object.entries(passwords)) {
      const file = join(folder, role);
      writeFileSync(file, password);
      assert.match(await readPassword(file), /^[0-9a-f]{48}$/);
    }
    assert.equal(new Set(Object.values(passwords)).size, LOGINS.length);
    const keys = join(folder, 'keys');
    writeFileSync(keys, made.files['secret/jeex-encryption']?.keys ?? '');
    assert.doesNotThrow(() => loadRing({ file: keys }, null));
  });

  test('hands no value over as an argument, which others on the machine could read', () => {
    const values = Object.values(made.files).flatMap((files) => Object.values(files));
    for (const value of values) assert.ok(!made.arguments.includes(value.trim()));
  });

  test('leaves alone what is there', () => {
    assert.deepEqual(makeSecrets('there').files, {});
  });
});

/** Runs the script with a kubectl that writes down what it is told to make. @param found what it says is there already */
function makeSecrets(found = ''): { files: Record<string, Record<string, string>>; arguments: string } {
  const kubectl = join(folder, `kubectl${found}`);
  const log = `${kubectl}.log`;
  writeFileSync(log, '');
  writeFileSync(kubectl, fakeKubectl(log, found));
  chmodSync(kubectl, 0o755);
  const jwks = join(folder, 'jwks.json');
  writeFileSync(jwks, '{"keys":[]}');
  execFileSync(fileURLToPath(new URL('secrets.sh', K8S)), ['jeex-dev', jwks], {
    env: { ...process.env, KUBECTL: kubectl },
  });
  const calls = readFileSync(log, 'utf8').split('\n').filter(Boolean);
  const parsed = calls.map((line) => JSON.parse(line) as { name: string; files: Record<string, string>; said: string });
  return {
    files: Object.fromEntries(parsed.map(({ name, files }) => [name, files])),
    arguments: parsed.map(({ said }) => said).join('\n'),
  };
}

/** Answers `get` with what is there, and writes down what `create` is told, with the content of its files. */
function fakeKubectl(log: string, found: string): string {
  return `#!${process.execPath}
const { appendFileSync, readdirSync, readFileSync, statSync } = require('node:fs');
const { basename, join } = require('node:path');
const [, , , , verb, kind, ...rest] = process.argv;
if (verb === 'get') {
  process.stdout.write(${JSON.stringify(found)});
} else {
  const [name, option] = kind === 'secret' ? rest.slice(1) : rest;
  const [, key, path] = /^--from-file=(?:([^=]+)=)?(.+)$/.exec(option);
  const paths = statSync(path).isDirectory() ? readdirSync(path).map((file) => join(path, file)) : [path];
  const files = paths.map((file) => [key ?? basename(file), readFileSync(file, 'utf8')]);
  const line = { name: kind + '/' + name, files: Object.fromEntries(files), said: process.argv.join(' ') };
  appendFileSync(${JSON.stringify(log)}, JSON.stringify(line) + '\\n');
}
`;
}

suite('the overlay ha', () => {
  const ha = readFolder('overlays/ha');

  test("configures PostgreSQL as the image does, but for what is CloudNativePG's", () => {
    const { parameters } = find(ha, 'Cluster', 'postgres').spec.postgresql;
    const own = parseConf(readFileSync(new URL('../images/postgres/postgresql.conf', K8S), 'utf8'));
    for (const name of CLOUDNATIVE_PG_DECIDES) delete own[name];
    const ours = { ...own, ...parseConf(readFileSync(new URL('base/postgres.conf', K8S), 'utf8')) };
    for (const name of MEMORY) assert.ok(name in parameters, `${name} would be PostgreSQL's default`);
    const shown = Object.entries(parameters).filter(([name]) => !MEMORY.includes(name));
    assert.deepEqual(Object.fromEntries(shown), ours);
  });

  test('acknowledges no write that a failover could lose', () => {
    const { instances, postgresql } = find(ha, 'Cluster', 'postgres').spec;
    assert.equal(instances, 3);
    assert.deepEqual(postgresql.synchronous, {
      method: 'any',
      number: 1,
      dataDurability: 'required',
      failoverQuorum: true,
    });
  });

  test('lets in the roles of the service with TLS and a password, the superuser from the bootstrap, and nobody else', () => {
    const { pg_hba: lines } = find(ha, 'Cluster', 'postgres').spec.postgresql;
    const roles = LOGINS.map((login) => `jeex_${login}`).join(',');
    assert.deepEqual(lines, [
      `hostssl jeex ${roles} all scram-sha-256`,
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is CloudNativePG's placeholder.
      'hostssl postgres,jeex postgres ${podselector:bootstrap} scram-sha-256',
      'host all all all reject',
    ]);
  });

  test("gives the bootstrap the superuser's password in a file, which its URL names", async () => {
    const bootstrap = containerOf(ha, 'bootstrap');
    const { ADMIN_DATABASE_URL: url = '' } = envOf(bootstrap);
    assert.ok(loadConfig(envOf(bootstrap), 'command').adminDatabaseUrl);
    const file = join(folder, 'superuser');
    writeFileSync(file, 'p4ss/word\n');
    const { password, searchParams } = new URL(
      await connectionString(url.replace('/run/secrets/jeex/superuser/password', file)),
    );
    assert.equal(password, 'p4ss%2Fword');
    assert.deepEqual(Object.fromEntries(searchParams), {
      sslmode: 'verify-full',
      sslrootcert: '/run/secrets/jeex/tls/ca.crt',
    });
  });
});

/** Settings of our own server that CloudNativePG has itself, or that mean nothing there. */
const CLOUDNATIVE_PG_DECIDES = [
  ...['listen_addresses', 'unix_socket_directories', 'unix_socket_permissions', 'hba_file', 'include', 'include_dir'],
  ...['ssl', 'ssl_cert_file', 'ssl_key_file', 'allow_alter_system', 'dynamic_shared_memory_type'],
  ...['archive_mode', 'archive_command', 'max_wal_senders', 'max_replication_slots', 'shared_preload_libraries'],
  ...['log_destination', 'logging_collector', 'log_line_prefix'],
];
/** What follows the memory limit in our own image. */
const MEMORY = ['shared_buffers', 'effective_cache_size', 'maintenance_work_mem', 'autovacuum_work_mem', 'work_mem'];
