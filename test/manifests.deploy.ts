import assert from 'node:assert/strict';
import { before, suite, test } from 'node:test';
import { VERSION } from '../src/version.ts';
import { buildKubectl, manifestsOf, migrationPod, secretsFor } from './support/kubectl.ts';
import { CHECKS } from './support/manifest-checks.ts';
import { type Contents, checkReferences, LINK_CHECKS } from './support/manifest-links.ts';
import type { Manifest } from './support/manifest-types.ts';
import { containerOf, containersOf, faultsOf, find, ofKind, pathsOf, workloadsOf } from './support/manifests.ts';
import { NO_DOCKER } from './support/stack.ts';

const OVERLAYS = {
  dev: { namespace: 'jeex-dev', tag: 'dev', without: ['HorizontalPodAutoscaler', 'Cluster'] },
  production: { namespace: 'jeex', tag: VERSION, without: ['Cluster', 'Issuer'] },
  ha: { namespace: 'jeex', tag: VERSION, without: ['StatefulSet', 'ConfigMap', 'Issuer'] },
} as const;

suite('the overlays of Kubernetes', { skip: NO_DOCKER }, () => {
  let made: Contents = {};

  before(async () => {
    await buildKubectl();
    const secrets = await secretsFor('jeex-dev', '{"keys":[]}');
    assert.deepEqual(secrets.flatMap(faultsOf), []);
    made = Object.fromEntries(
      secrets.map(({ kind, metadata, data = {} }) => [`${kind.toLowerCase()}/${metadata.name}`, Object.keys(data)]),
    );
  });

  for (const [overlay, { namespace, tag, without }] of Object.entries(OVERLAYS)) {
    suite(overlay, () => {
      let manifests: Manifest[] = [];

      before(async () => {
        manifests = await manifestsOf(`kubectl kustomize /k8s/overlays/${overlay}`);
      });

      test('is rendered by kustomize too, and to the same', async () => {
        assert.deepEqual(await manifestsOf(`kustomize build /k8s/overlays/${overlay}`), manifests);
      });

      test('holds objects that fit their kinds, field by field', () => {
        assert.deepEqual(manifests.flatMap(faultsOf), []);
      });

      for (const [name, check] of Object.entries({ ...CHECKS, ...LINK_CHECKS })) test(name, () => check(manifests));

      test('every secret that it names comes from somewhere', () => checkReferences(manifests, made));

      test('migrate.sh migrates by hand as the pods of the Deployment do, with the release and the command it is told', async () => {
        const image = 'registry.example.com/jeex/jeex-persistence:9.9.9';
        const deployment = find(manifests, 'Deployment', 'jeex-persistence');
        const command = ['down', '--to', '13', '--i-have-a-backup'];
        const { metadata, spec } = await migrationPod(deployment, [namespace, image, ...command]);
        const { name, args, ...container } = spec.containers[0] ?? assert.fail();
        const its = containerOf(manifests, 'migrate');
        assert.deepEqual([spec.containers.length, name], [1, metadata.name], 'what kubectl merges by name');
        assert.deepEqual([metadata.namespace, spec.restartPolicy, container.image], [namespace, 'Never', image]);
        assert.deepEqual(args, ['migrate', ...command]);
        const { env, resources, securityContext } = its;
        const { env: given, resources: limits, securityContext: context } = container;
        assert.deepEqual([given, limits, context], [env, resources, securityContext]);
        const { spec: pod } = deployment.spec.template;
        assert.deepEqual(pathsOf(spec, { ...container, name }), pathsOf(pod, its));
        const { serviceAccountName, automountServiceAccountToken, enableServiceLinks } = pod;
        assert.equal(spec.serviceAccountName, serviceAccountName);
        assert.deepEqual(
          [spec.automountServiceAccountToken, spec.enableServiceLinks],
          [automountServiceAccountToken, enableServiceLinks],
        );
        assert.deepEqual(spec.securityContext, pod.securityContext);
        assert.equal(metadata.labels['app.kubernetes.io/name'], 'jeex-migrate', 'whom the network lets to PostgreSQL');
        const template = { metadata: { labels: metadata.labels }, spec };
        const job = { apiVersion: 'batch/v1', kind: 'Job', metadata: { name: 'by-hand' }, spec: { template } } as const;
        assert.deepEqual(faultsOf(job), [], 'a pod that fits its kind');
      });

      test('everything is in its namespace, whose pods have to be restricted', () => {
        const [own, ...others] = ofKind(manifests, 'Namespace');
        assert.equal(own?.metadata.name, namespace);
        assert.equal(own?.metadata.labels?.['pod-security.kubernetes.io/enforce'], 'restricted');
        assert.deepEqual(others, []);
        for (const { kind, metadata } of manifests) {
          if (kind !== 'Namespace') assert.equal(metadata.namespace, namespace, `${kind} ${metadata.name}`);
        }
      });

      test('no image is without its tag', () => {
        for (const { image } of workloadsOf(manifests).flatMap(({ pod }) => containersOf(pod))) {
          assert.match(image, new RegExp(`^(registry\\.example\\.com/jeex/)?jeex-[a-z]+:${tag}$`));
        }
      });

      test('holds neither secrets nor what another overlay has', () => {
        const kinds = manifests.map(({ kind }) => kind);
        for (const kind of ['Secret', ...without] as const) assert.ok(!kinds.includes(kind), kind);
      });
    });
  }
});
