import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { keySetOf, makeKey } from '../src/auth/development.ts';
import { createAuthority } from './support/certificates.ts';
import { buildKubectl, manifestsOf, secretsFor } from './support/kubectl.ts';
import type { Manifest, ManifestOf } from './support/manifest-types.ts';
import { containerOf, ofKind } from './support/manifests.ts';
import { createPods, type Pods, type RunningPod } from './support/pods.ts';
import { NO_DOCKER, newProject } from './support/stack.ts';

/** What cert-manager would make of the certificates that the manifests ask for. */
const issued = async (manifests: readonly Manifest[]): Promise<{ secrets: ManifestOf<'Secret'>[]; ca: string }> => {
  const authority = await createAuthority('Authority');
  const asked = ofKind(manifests, 'Certificate').filter(({ spec }) => !spec.isCA);
  const secrets = asked.map(async ({ spec, metadata }): Promise<ManifestOf<'Secret'>> => {
    const { cert, key } = await authority.issue({
      commonName: metadata.name,
      dns: spec.dnsNames ?? [],
      usage: 'server',
    });
    const files = { 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.cert };
    const data = Object.entries(files).map(([name, text]) => [name, Buffer.from(text).toString('base64')]);
    return {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: spec.secretName },
      data: Object.fromEntries(data),
      spec: undefined,
    };
  });
  return { secrets: await Promise.all(secrets), ca: authority.cert };
};

suite('the pods of the overlay dev, run as the kubelet would', { skip: NO_DOCKER }, () => {
  let pods: Pods;
  let manifests: Manifest[] = [];
  let persistence: RunningPod;
  let postgres: RunningPod;

  before(async () => {
    await buildKubectl();
    const key = await makeKey();
    const rendered = await manifestsOf('kubectl kustomize /k8s/overlays/dev');
    const { secrets, ca } = await issued(rendered);
    manifests = [...rendered, ...secrets, ...(await secretsFor('jeex-dev', keySetOf([key])))];
    pods = await createPods(manifests, newProject(), { 'ca.crt': ca, 'key.json': JSON.stringify(key) });
    postgres = await pods.start('postgres');
    persistence = await pods.start('jeex-persistence');
  });
  after(() => pods?.close());

  /** Who asks the health of a name; by the port that probes ask, or by an address over TLS. */
  const health = (service: string, address = 'jeex-persistence:50052', options: readonly string[] = []) =>
    pods.beside(['jeex-persistence', 'health', '--address', address, '--service', service, ...options]);

  test('the probes tell how the service is', async () => {
    const { livenessProbe, readinessProbe } = containerOf(manifests, 'service');
    for (const probe of [livenessProbe, readinessProbe]) {
      const { code, err } = await health(probe?.grpc?.service ?? '', `jeex-persistence:${probe?.grpc?.port}`);
      assert.equal(code, 0, err);
    }
    assert.equal((await health('no such service')).code, 1);
  });

  test('a caller plays the main job over TLS, with a token', async () => {
    const files = ['--ca', '/run/given/ca.crt', '--key', '/run/given/key.json'];
    const { code, out, err } = await pods.beside([
      ...['jeex-persistence', 'demo', '--address', 'jeex-persistence:50051', ...files],
    ]);
    assert.equal(code, 0, `${out}${err}${await persistence.logs()}`);
  });

  test('the certificate is for each name of the service, and for no other', async () => {
    const ca = ['--ca', '/run/given/ca.crt'];
    const asked = ['jeex-persistence', 'jeex-persistence-headless', 'pod-of-jeex-persistence'].map((name) =>
      health('readiness', `${name}:50051`, ca),
    );
    assert.deepEqual(
      (await Promise.all(asked)).map(({ code }) => code),
      [0, 0, 1],
    );
  });

  test('PgBouncer cannot be reached from outside its pod', async () => {
    const { err } = await pods.beside(['node', '--eval', "require('net').connect(6432, 'jeex-persistence')"]);
    assert.match(err, /ECONNREFUSED/);
  });

  test('a pod ends in time, the service before PgBouncer, and a new one finds everything as it was', async () => {
    assert.deepEqual(Object.entries(await persistence.end()), [
      ['service', 0],
      ['migrate', 0],
      ['pgbouncer', 0],
    ]);
    assert.deepEqual(await postgres.end(), { postgres: 0 });
    postgres = await pods.start('postgres');
    persistence = await pods.start('jeex-persistence');
    const { code, err } = await health('readiness');
    assert.equal(code, 0, err);
  });
});
