import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { docker, must, ROOT } from './docker.ts';
import type { Manifest } from './manifest-types.ts';
import { parseManifests } from './manifests.ts';

/** The image with kubectl, kustomize and a shell. */
export const KUBECTL = 'jeex-kubectl:dev';

export const buildKubectl = async (): Promise<void> => {
  const base = process.env.BASE_IMAGE ? ['--build-arg', `BASE_IMAGE=${process.env.BASE_IMAGE}`] : [];
  const input = readFileSync(new URL('../kubectl/Dockerfile', import.meta.url), 'utf8');
  await must(['build', '--tag', KUBECTL, ...base, '-'], { input });
};

const RUN = ['run', '--rm', '--interactive', '--network', 'none', '--read-only', '--tmpfs', '/tmp:exec'];

/**
 * What a script prints where kubectl is, without a network, with deploy/k8s in /k8s, as objects.
 * @throws AssertionError when it fails, or warns of something
 */
export const manifestsOf = async (script: string, input = ''): Promise<Manifest[]> => {
  const options = ['--cap-drop', 'ALL', '--env', 'HOME=/tmp', '--volume', `${ROOT}/deploy/k8s:/k8s:ro`];
  const { code, out, err } = await docker([...RUN, ...options, KUBECTL, 'bash', '-c', script], { input });
  assert.deepEqual({ code, err }, { code: 0, err: '' });
  return parseManifests(out);
};

/** What secrets.sh has the real kubectl make. @param jwks the keys that check tokens */
export const secretsFor = (namespace: string, jwks: string): Promise<Manifest[]> =>
  manifestsOf(
    `
cat >/tmp/kubectl <<'SH'
#!/bin/sh
case "$*" in *' get '*) exit 0 ;; esac
echo ---
exec kubectl "$@" --dry-run=client --output yaml
SH
chmod +x /tmp/kubectl
cat >/tmp/jwks.json
KUBECTL=/tmp/kubectl /k8s/secrets.sh ${namespace} /tmp/jwks.json`,
    jwks,
  );
