import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { docker, must, ROOT } from './docker.ts';
import type { Manifest, ManifestOf, PodObject } from './manifest-types.ts';
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
 * What a script prints where kubectl is, without a network, with deploy/k8s in /k8s.
 * @throws AssertionError when it fails, or warns of something
 */
const outputOf = async (script: string, input = ''): Promise<string> => {
  const options = ['--cap-drop', 'ALL', '--env', 'HOME=/tmp', '--volume', `${ROOT}/deploy/k8s:/k8s:ro`];
  const { code, out, err } = await docker([...RUN, ...options, KUBECTL, 'bash', '-c', script], { input });
  assert.deepEqual({ code, err }, { code: 0, err: '' });
  return out;
};

/** The same, as objects. */
export const manifestsOf = async (script: string, input = ''): Promise<Manifest[]> =>
  parseManifests(await outputOf(script, input));

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

/**
 * The pod that migrate.sh has kubectl run beside a Deployment, of which it is told by the real kubectl: what the options
 * say, and the overrides' one container laid over theirs.
 */
export const migrationPod = async (
  deployment: ManifestOf<'Deployment'>,
  args: readonly string[],
): Promise<PodObject> => {
  const said = await outputOf(
    `
cat >/tmp/deployment.json
cat >/tmp/kubectl <<'SH'
#!/bin/bash
[[ $3 == run ]] || exec kubectl label --local --filename /tmp/deployment.json by=test "\${@: -2}"
printf '%s\\0' "$@"
SH
chmod +x /tmp/kubectl
KUBECTL=/tmp/kubectl /k8s/migrate.sh ${args.join(' ')}`,
    JSON.stringify(deployment),
  );
  const [, namespace = '', , name = '', ...rest] = said.split('\0').slice(0, -1);
  const end = rest.indexOf('--');
  const options = rest.slice(0, end).map((option) => option.split(/=(.*)/s));
  const {
    image = '',
    labels = '',
    restart = '',
    overrides = '',
  } = Object.fromEntries(options.map(([option = '', value]) => [option.slice(2), value])) as Record<string, string>;
  const { spec } = JSON.parse(overrides) as Pick<PodObject, 'spec'>;
  return {
    kind: 'Pod',
    metadata: { name, namespace, labels: Object.fromEntries(labels.split(',').map((label) => label.split('='))) },
    spec: {
      ...spec,
      restartPolicy: restart,
      containers: spec.containers.map((container) => ({ ...container, image, args: rest.slice(end + 1) })),
    },
  };
};
