import assert from 'node:assert/strict';
import { before, suite, test } from 'node:test';
import { VERSION } from '../src/version.ts';
import { buildKubectl, manifestsOf, secretsFor } from './support/kubectl.ts';
import { CHECKS } from './support/manifest-checks.ts';
import { type Contents, checkReferences, LINK_CHECKS } from './support/manifest-links.ts';
import type { Manifest } from './support/manifest-types.ts';
import { containersOf, faultsOf, ofKind, workloadsOf } from './support/manifests.ts';
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
