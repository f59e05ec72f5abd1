import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { loadConfig } from '../../src/config.ts';
import { brokenRules, describePlan, type Plan } from '../../src/db/pool-plan.ts';
import { VARIABLES } from '../../src/variables.ts';
import { parseConf, parseIni, pgbouncerVariables } from './image-files.ts';
import type { Container, Manifest } from './manifest-types.ts';
import { containerOf, containersOf, envOf, find, ofKind, pathsOf, workloadsOf } from './manifests.ts';

/** What holds of any set of manifests that is deployed together: each check throws an AssertionError that says what does not. */
export type Check = (manifests: readonly Manifest[]) => void;

const images = (path: string): string => readFileSync(new URL(`../../deploy/images/${path}`, import.meta.url), 'utf8');

/** The Pod Security Standard "restricted", and beyond it a root file system that nobody writes. */
const checkRestricted: Check = (manifests) => {
  for (const { name, pod } of workloadsOf(manifests)) {
    const { hostNetwork, hostPID, hostIPC, securityContext } = pod;
    assert.ok(!hostNetwork && !hostPID && !hostIPC, `${name} shares the node's namespaces`);
    assert.equal(securityContext.runAsNonRoot, true, name);
    assert.deepEqual(securityContext.seccompProfile, { type: 'RuntimeDefault' }, name);
    for (const { name: kind, ...volume } of pod.volumes ?? []) {
      assert.ok('secret' in volume || 'configMap' in volume || 'emptyDir' in volume, `${name}: volume ${kind}`);
    }
    for (const container of containersOf(pod)) checkContainer(`${name}/${container.name}`, container);
  }
};

const checkContainer = (name: string, { securityContext: context }: Container): void => {
  assert.equal(context?.allowPrivilegeEscalation, false, `${name} may gain privileges`);
  assert.deepEqual(context?.capabilities, { drop: ['ALL'] }, `${name} has capabilities`);
  assert.equal(context?.readOnlyRootFilesystem, true, `${name} writes its root file system`);
};

/** Each image runs as its own user, is one that the repository builds, and a probe runs what the image has for it. */
const checkImages: Check = (manifests) => {
  const stages = stagesOf(images('Dockerfile'));
  for (const container of workloadsOf(manifests).flatMap(({ pod }) => containersOf(pod))) {
    const image = container.image.replace(/^.*\//, '').replace(/[:@].*$/, '');
    const stage = stages.get(image) ?? assert.fail(`${container.name}: no image ${image} is built`);
    const { runAsUser } = container.securityContext ?? {};
    assert.equal(`${runAsUser ?? userOf(manifests, container)}`, stage.user, `${container.name} runs as another user`);
    for (const probe of [container.startupProbe, container.livenessProbe, container.readinessProbe]) {
      if (probe?.exec) assert.deepEqual(probe.exec.command, stage.health, `${container.name} has no such command`);
    }
  }
};

const userOf = (manifests: readonly Manifest[], container: Container): number | undefined =>
  workloadsOf(manifests).find(({ pod }) => containersOf(pod).includes(container))?.pod.securityContext.runAsUser;

interface Stage {
  readonly user: string | undefined;
  readonly health: readonly string[];
}

/** The images of the Dockerfile, by the title in their labels. */
const stagesOf = (dockerfile: string): Map<string, Stage> =>
  new Map(
    dockerfile.split(/^FROM /m).flatMap((text) => {
      const [, title] = /image\.title="([^"]+)"/.exec(text) ?? [];
      const [, user] = /^USER (\d+)/m.exec(text) ?? [];
      const [, health = '[]'] = /^HEALTHCHECK .*CMD (\[.*\])/m.exec(text) ?? [];
      return title ? [[title, { user, health: JSON.parse(health) as string[] }]] : [];
    }),
  );

/** Nobody holds a token for the API server, and every service account is there. */
const checkAccounts: Check = (manifests) => {
  const used = workloadsOf(manifests).map(({ pod }) => pod);
  for (const pod of used) {
    assert.equal(pod.automountServiceAccountToken, false);
    assert.equal(pod.enableServiceLinks, false);
    find(manifests, 'ServiceAccount', pod.serviceAccountName);
  }
  const accounts = ofKind(manifests, 'ServiceAccount').map(({ metadata }) => metadata.name);
  assert.deepEqual(accounts.sort(), [...new Set(used.map((pod) => pod.serviceAccountName))].sort());
};

/** The ports are the ones that the service listens on, and what probes ask it answers there. */
const checkPorts: Check = (manifests) => {
  const service = containerOf(manifests, 'service');
  const { grpcListen, httpListen, healthListen } = loadConfig(envOf(service));
  const ports = Object.fromEntries(service.ports?.map((port) => [port.name, port.containerPort]) ?? []);
  assert.deepEqual(ports, { grpc: grpcListen.port, https: httpListen.port, health: healthListen?.port });
  for (const { host } of [grpcListen, httpListen]) assert.equal(host, '0.0.0.0');
  assert.equal(healthListen?.host, '0.0.0.0', 'the kubelet comes from outside the pod');
  const probes = [service.startupProbe, service.livenessProbe, service.readinessProbe].map((probe) => probe?.grpc);
  assert.deepEqual(probes, [
    { port: healthListen.port, service: 'liveness' },
    { port: healthListen.port, service: 'liveness' },
    { port: healthListen.port, service: 'readiness' },
  ]);
  for (const name of ['jeex-persistence', 'jeex-persistence-headless']) {
    for (const port of find(manifests, 'Service', name).spec.ports) {
      assert.equal(port.port, ports[port.targetPort], `${name}: ${port.name}`);
    }
  }
};

/** PgBouncer is up before the migrations, these done before the service, and only the sidecar goes on. */
const checkOrder: Check = (manifests) => {
  const { pod } = workloadsOf(manifests).find(({ name }) => name === 'jeex-persistence') ?? assert.fail();
  assert.deepEqual(
    containersOf(pod).map(({ name, restartPolicy, args }) => [name, restartPolicy, args]),
    [
      ['pgbouncer', 'Always', undefined],
      ['migrate', undefined, ['migrate', 'up', '--wait', '600']],
      ['service', undefined, ['serve']],
    ],
  );
  assert.ok(containerOf(manifests, 'pgbouncer').startupProbe, 'nothing would wait for PgBouncer');
  const { progressDeadlineSeconds } = find(manifests, 'Deployment', 'jeex-persistence').spec;
  const { args = [], terminationMessagePolicy } = containerOf(manifests, 'migrate');
  assert.ok(
    Number(args.at(-1)) < progressDeadlineSeconds,
    'a rollout would have failed before it says for whom it waits',
  );
  assert.equal(terminationMessagePolicy, 'FallbackToLogsOnError', 'a refusal would have to be looked for in the logs');
};

/** Each program knows every variable that it is given, and the service's are complete. */
const checkEnvironment: Check = (manifests) => {
  const service = envOf(containerOf(manifests, 'service'));
  const migrate = envOf(containerOf(manifests, 'migrate'));
  for (const name of Object.keys({ ...service, ...migrate })) assert.ok(name in VARIABLES, `${name} is no variable`);
  const { auth, tls, databaseUrl, encryptionKeys, migrate: mode } = loadConfig(service);
  assert.ok(auth && tls && databaseUrl && encryptionKeys, 'the service would start without what protects it');
  assert.equal(mode, 'check', "the service has no owner's password to migrate with");
  assert.ok(loadConfig(migrate, 'command').migrationDatabaseUrl);
  const known = pgbouncerVariables(images('pgbouncer/entrypoint.sh'));
  for (const name of Object.keys(envOf(containerOf(manifests, 'pgbouncer')))) {
    assert.ok(known.includes(name), `PgBouncer's entrypoint does not know ${name}`);
  }
};

/** What each container sees of secrets and of what is told it, and nothing else. */
const FILES: Record<string, readonly string[]> = {
  postgres: [
    ...['app', 'backup', 'monitor', 'owner', 'pooler', 'readonly'].map((role) => `passwords/jeex_${role}`),
    ...['tls/tls.crt', 'tls/tls.key'],
  ],
  pgbouncer: ['passwords/jeex_monitor', 'passwords/jeex_pooler', 'tls/ca.crt', 'tls/tls.crt', 'tls/tls.key'],
  migrate: ['passwords/jeex_owner', 'tls/ca.crt'],
  service: [
    ...['auth/jwks.json', 'encryption/keys', 'passwords/jeex_app', 'passwords/jeex_monitor'],
    ...['tls/ca.crt', 'tls/tls.crt', 'tls/tls.key'],
  ],
  bootstrap: [
    ...['app', 'backup', 'monitor', 'owner', 'pooler', 'readonly'].map((role) => `passwords/jeex_${role}`),
    ...['superuser/password', 'tls/ca.crt'],
  ],
  settings: ['tls/ca.crt'],
};

const checkFiles: Check = (manifests) => {
  for (const { pod } of workloadsOf(manifests)) {
    for (const container of containersOf(pod)) {
      const seen = pathsOf(pod, container).filter((path) => path.startsWith('/run/secrets/'));
      const fromUrl = /^https:/.test(envOf(container).AUTH_JWKS ?? '');
      const needed = FILES[container.name]?.filter((path) => !(fromUrl && path.startsWith('auth/')));
      assert.deepEqual(
        seen.sort(),
        needed?.map((path) => `/run/secrets/jeex/${path}`),
        `${container.name} sees other files than it needs`,
      );
      checkNamedFiles(container, pathsOf(pod, container));
    }
  }
};

/** Every file that the environment or an argument names is there. */
const checkNamedFiles = (container: Container, seen: readonly string[]): void => {
  const texts = [...Object.values(envOf(container)), ...(container.command ?? [])];
  for (const [path] of texts.flatMap((text) => [...text.matchAll(/\/run\/secrets\/[\w./]+/g)])) {
    const there = seen.some((one) => one === path || one.startsWith(`${path}/`));
    assert.ok(there, `${container.name} names ${path}, which is not mounted`);
  }
};

/** Who may read a secret: root, and the group that the pod's containers are in. */
const checkModes: Check = (manifests) => {
  for (const { name, pod } of workloadsOf(manifests)) {
    assert.equal(pod.securityContext.fsGroup, 10000, name);
    for (const { secret, configMap } of pod.volumes ?? []) {
      if (secret) assert.equal(secret.defaultMode, 0o440, secret.secretName);
      if (configMap) assert.equal(configMap.defaultMode, 0o444, configMap.name);
    }
  }
};

/** PgBouncer's settings, by their names in its file; the environment's win. */
const poolerSettings = (manifests: readonly Manifest[]) => {
  const ini = parseIni(images('pgbouncer/pgbouncer.ini'));
  const env = envOf(containerOf(manifests, 'pgbouncer'));
  return (name: string): string => env[name.toUpperCase()] ?? ini[name] ?? assert.fail(`PgBouncer has no ${name}`);
};

/** The figures of the whole deployment: its replicas, PgBouncer's file, and PostgreSQL's with what is mounted over it. */
const planOf = (manifests: readonly Manifest[]): Plan => {
  const { poolSize, maxReplicas } = loadConfig(envOf(containerOf(manifests, 'service')));
  const settings = poolerSettings(manifests);
  const pooler = (name: string): number => Number(settings(name));
  const [, auth, authReserve] = /pool_size=(\d+) reserve_pool_size=(\d+)/.exec(settings('jeex_pooler')) ?? [];
  const conf = { ...parseConf(images('postgres/postgresql.conf')), ...ownSettings(manifests) };
  return {
    poolSize,
    maxReplicas,
    server: {
      maxConnections: Number(conf.max_connections),
      superuserReserved: Number(conf.superuser_reserved_connections ?? 3),
      reserved: Number(conf.reserved_connections ?? 0),
    },
    pooler: {
      pool: pooler('default_pool_size'),
      reserve: pooler('reserve_pool_size'),
      auth: Number(auth) + Number(authReserve),
      clients: pooler('max_client_conn'),
      database: pooler('max_db_connections'),
    },
  };
};

/** What the manifests say over postgresql.conf: a mounted file, or CloudNativePG's parameters. */
const ownSettings = (manifests: readonly Manifest[]): Record<string, string> => {
  const [cluster] = ofKind(manifests, 'Cluster');
  if (cluster) return cluster.spec.postgresql.parameters;
  const settings = ofKind(manifests, 'ConfigMap').find(({ metadata }) => /^postgres-settings/.test(metadata.name));
  return parseConf(Object.values(settings?.data ?? {}).join('\n'));
};

const checkConnections: Check = (manifests) => {
  const plan = planOf(manifests);
  assert.deepEqual(brokenRules(plan), [], describePlan(plan));
};

/** Who waits at PgBouncer gets one of the reserve's connections before it is sent away, or the reserve is there for nothing. */
const checkReserve: Check = (manifests) => {
  const settings = poolerSettings(manifests);
  assert.ok(Number(settings('reserve_pool_timeout')) < Number(settings('query_wait_timeout')));
};

/**
 * As many replicas as MAX_REPLICAS says may be alive: the most there shall be, those of an update, and as many that are still
 * ending, since each further step waits until a pod has been ready for longer than another takes to end.
 */
const checkReplicas: Check = (manifests) => {
  const { spec } = find(manifests, 'Deployment', 'jeex-persistence');
  const [scaler] = ofKind(manifests, 'HorizontalPodAutoscaler');
  const most = scaler?.spec.maxReplicas ?? spec.replicas ?? assert.fail('nothing says how many replicas there are');
  const service = loadConfig(envOf(containerOf(manifests, 'service')));
  const { maxSurge, maxUnavailable } = spec.strategy.rollingUpdate;
  assert.equal(maxUnavailable, 0);
  assert.equal(service.maxReplicas, most + 2 * maxSurge);
  const { terminationGracePeriodSeconds } = spec.template.spec;
  assert.ok(spec.minReadySeconds >= terminationGracePeriodSeconds, 'an update may outrun the pods that end');
  if (scaler) {
    assert.equal(spec.replicas, undefined, 'each kubectl apply would undo what the autoscaler decided');
    assert.deepEqual(scaler.spec.behavior.scaleDown.policies, [{ type: 'Pods', value: 1, periodSeconds: 60 }]);
    assert.ok(terminationGracePeriodSeconds <= 60, 'a second pod would go before the first has ended');
  }
  const { shutdownDelaySeconds, shutdownGraceSeconds } = service;
  assert.ok(shutdownDelaySeconds >= 5, 'an endpoint may lead to it when it takes no more calls');
  // What is left of access records may take 10 s, connections 1.
  const needed = shutdownDelaySeconds + shutdownGraceSeconds + 11;
  assert.ok(terminationGracePeriodSeconds >= needed, 'calls in flight would be cut short');
};

export const CHECKS: Record<string, Check> = {
  'every container is restricted': checkRestricted,
  'every container runs an image of the repository, as its user, with its probe': checkImages,
  'no pod has a token for the API server': checkAccounts,
  'ports and probes are what the service serves': checkPorts,
  'PgBouncer, the migrations and the service start in this order': checkOrder,
  'the environment is what the programs read': checkEnvironment,
  'each container sees the files it needs, and no other': checkFiles,
  'secrets are for root and the group': checkModes,
  'the connections fit into what PostgreSQL lets in': checkConnections,
  'the reserve is opened before callers are sent away': checkReserve,
  'no more replicas live than the connections are counted for': checkReplicas,
};
