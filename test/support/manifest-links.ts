import assert from 'node:assert/strict';
import type { Check } from './manifest-checks.ts';
import type { Labels, Manifest, PolicyPeer, Rule } from './manifest-types.ts';
import { containerOf, containersOf, envOf, find, ofKind, type Workload, workloadsOf } from './manifests.ts';

/** The keys of each Secret (`secret/name`) and ConfigMap (`configmap/name`). */
export type Contents = Readonly<Record<string, readonly string[]>>;

/** What is not in the repository and not made by its script, and who makes it. */
const MADE_ELSEWHERE: Contents = {
  // By CloudNativePG.
  'secret/postgres-superuser': ['username', 'password'],
  // By the operator of the object store.
  'secret/jeex-backup-s3': ['ACCESS_KEY_ID', 'ACCESS_SECRET_KEY', 'ENCRYPTION_PASSPHRASE'],
};

/** Every Secret and ConfigMap that the manifests name, with the keys they take of it. */
const referencesOf = (manifests: readonly Manifest[]): [name: string, key: string][] => [
  ...workloadsOf(manifests).flatMap(({ pod }) => [
    ...(pod.volumes ?? []).flatMap(({ secret, configMap }): [string, string][] => [
      ...(secret?.items ?? []).map(({ key }): [string, string] => [`secret/${secret?.secretName}`, key]),
      ...(configMap?.items ?? []).map(({ key }): [string, string] => [`configmap/${configMap?.name}`, key]),
    ]),
    ...containersOf(pod)
      .flatMap(({ env = [] }) => env.flatMap(({ valueFrom }) => valueFrom?.secretKeyRef ?? []))
      .map(({ name, key }): [string, string] => [`secret/${name}`, key]),
  ]),
  ...ofKind(manifests, 'Issuer').flatMap(({ spec }): [string, string][] =>
    spec.ca ? [[`secret/${spec.ca.secretName}`, 'tls.key']] : [],
  ),
  ...ofKind(manifests, 'Cluster').flatMap(({ spec }): [string, string][] => [
    [`secret/${spec.certificates.serverTLSSecret}`, 'tls.key'],
    [`secret/${spec.certificates.serverCASecret}`, 'ca.crt'],
  ]),
  ...ofKind(manifests, 'Stanza').flatMap(({ spec }) => keysIn(spec)),
];

/** Each `{ name, key }` in an object. */
const keysIn = (value: object): [string, string][] => {
  if ('name' in value && 'key' in value) return [[`secret/${value.name}`, String(value.key)]];
  return Object.values(value).flatMap((inner) => (typeof inner === 'object' && inner !== null ? keysIn(inner) : []));
};

const CERTIFICATE_KEYS = ['tls.crt', 'tls.key', 'ca.crt'];

/** Every Secret and ConfigMap that is named comes from somewhere, with that key. @param made what the script makes */
export const checkReferences = (manifests: readonly Manifest[], made: Contents): void => {
  const there: Contents = {
    ...MADE_ELSEWHERE,
    ...made,
    ...Object.fromEntries(
      ofKind(manifests, 'Certificate').map(({ spec }) => [`secret/${spec.secretName}`, CERTIFICATE_KEYS]),
    ),
    ...Object.fromEntries(
      ofKind(manifests, 'ConfigMap').map(({ metadata, data = {} }) => [
        `configmap/${metadata.name}`,
        Object.keys(data),
      ]),
    ),
  };
  const references = referencesOf(manifests);
  assert.ok(references.length > 10);
  for (const [name, key] of references) assert.ok(there[name]?.includes(key), `nothing makes ${name} with ${key}`);
};

/** Where the service's pods find PostgreSQL: the labels of its pods, by the host that they ask for. */
const DATABASES: Readonly<Record<string, Labels>> = {
  postgres: { 'app.kubernetes.io/name': 'postgres' },
  'postgres-rw': { 'cnpg.io/cluster': 'postgres' },
};

const hostOf = (url: string | undefined): string => new URL(url ?? assert.fail('a URL is missing')).hostname;

/** Clients verify names: each name that one asks for is in the certificate that it gets to see. */
const checkCertificates: Check = (manifests) => {
  const namesOf = (name: string): string[] => {
    const { dnsNames = [], ipAddresses = [], usages, privateKey } = find(manifests, 'Certificate', name).spec;
    assert.deepEqual([usages, privateKey.rotationPolicy], [['digital signature', 'server auth'], 'Always'], name);
    return [...dnsNames, ...ipAddresses];
  };
  const service = envOf(containerOf(manifests, 'service'));
  for (const url of [service.DATABASE_URL, service.PGBOUNCER_ADMIN_URL]) {
    assert.equal(new URL(url ?? '').port, '6432', 'past PgBouncer');
    assert.ok(namesOf('jeex-pgbouncer').includes(hostOf(url)));
  }
  const host = envOf(containerOf(manifests, 'pgbouncer')).DATABASE_HOST ?? assert.fail();
  assert.ok(namesOf('postgres').includes(host), `PostgreSQL's certificate is not for ${host}`);
  const owner = envOf(containerOf(manifests, 'migrate')).MIGRATION_DATABASE_URL;
  for (const url of [owner, service.MONITOR_DATABASE_URL, service.LISTEN_DATABASE_URL]) {
    assert.deepEqual([hostOf(url), new URL(url ?? '').port], [host, '5432'], 'not to PostgreSQL itself');
  }
  for (const { metadata } of ofKind(manifests, 'Service').filter(({ metadata }) => metadata.name !== host)) {
    if (!metadata.name.startsWith('jeex-persistence')) continue;
    const { name, namespace } = metadata;
    const names = namespace ? [name, `${name}.${namespace}.svc`, `${name}.${namespace}.svc.cluster.local`] : [name];
    for (const one of names) assert.ok(namesOf('jeex-persistence').includes(one), `no certificate is for ${one}`);
  }
  const issuers = ofKind(manifests, 'Issuer').map(({ metadata }) => metadata.name);
  for (const { spec, metadata } of ofKind(manifests, 'Certificate')) {
    if (issuers.length === 0 || spec.issuerRef.kind === 'ClusterIssuer') continue;
    assert.ok(issuers.includes(spec.issuerRef.name), `${metadata.name}: nobody issues it`);
  }
};

const selects = (selector: Labels, labels: Labels): boolean =>
  Object.entries(selector).every(([name, value]) => labels[name] === value);

/** What selects pods selects those of one workload, and the ports that it names are theirs. */
const checkSelectors: Check = (manifests) => {
  const workloads = workloadsOf(manifests);
  const only = (what: string, selector: Labels): Workload => {
    const found = workloads.filter(({ labels }) => selects(selector, labels));
    assert.equal(found.length, 1, `${what} selects ${found.map(({ name }) => name).join(', ') || 'nothing'}`);
    return found[0] as Workload;
  };
  for (const { kind, metadata, spec } of manifests) {
    if (kind === 'Deployment' || kind === 'StatefulSet' || kind === 'PodDisruptionBudget') {
      only(`${kind} ${metadata.name}`, spec.selector.matchLabels);
    }
    if (kind === 'HorizontalPodAutoscaler') find(manifests, spec.scaleTargetRef.kind, spec.scaleTargetRef.name);
    if (kind !== 'Service') continue;
    const { pod } = only(`Service ${metadata.name}`, spec.selector);
    const ports = containersOf(pod).flatMap(({ ports = [] }) => ports.map(({ name }) => name));
    for (const { targetPort } of spec.ports) assert.ok(ports.includes(targetPort), `${metadata.name}: ${targetPort}`);
  }
  for (const { spec } of ofKind(manifests, 'StatefulSet')) find(manifests, 'Service', spec.serviceName);
};

/** A pod as policies see it; without a namespace of its own it is in that of the manifests. */
interface Peer {
  readonly labels: Labels;
  readonly namespace?: Labels;
}

/** Whether a connection is let out of its pod, or into it. */
const passes = (
  manifests: readonly Manifest[],
  type: 'Ingress' | 'Egress',
  own: Peer,
  other: Peer,
  port: number,
): boolean => {
  const policies = ofKind(manifests, 'NetworkPolicy').filter(
    ({ spec }) => spec.policyTypes.includes(type) && selects(spec.podSelector.matchLabels ?? {}, own.labels),
  );
  const target = type === 'Ingress' ? own : other;
  const rules = policies.flatMap(
    ({ spec }): readonly Rule[] => (type === 'Ingress' ? spec.ingress : spec.egress) ?? [],
  );
  const named = portsOf(manifests, target);
  const open = rules.some(
    ({ from, to, ports }) =>
      (from ?? to ?? assert.fail('a rule is open to everybody')).some((peer) => isPeer(peer, other)) &&
      (ports ?? assert.fail('a rule opens every port')).some((one) => (named[one.port] ?? one.port) === port),
  );
  return policies.length === 0 || open;
};

const isPeer = ({ podSelector, namespaceSelector }: PolicyPeer, { labels, namespace }: Peer): boolean => {
  if (!podSelector && !namespaceSelector) return false;
  if (!namespaceSelector) return namespace === undefined && selects(podSelector?.matchLabels ?? {}, labels);
  return (
    namespace !== undefined &&
    selects(namespaceSelector.matchLabels ?? {}, namespace) &&
    selects(podSelector?.matchLabels ?? {}, labels)
  );
};

const portsOf = (manifests: readonly Manifest[], { labels }: Peer): Record<string, number> =>
  Object.fromEntries(
    workloadsOf(manifests)
      .filter((workload) => selects(workload.labels, labels))
      .flatMap(({ pod }) => containersOf(pod))
      .flatMap(({ ports = [] }) => ports.map(({ name, containerPort }) => [name, containerPort])),
  );

const named = (name: string): Labels => ({ 'app.kubernetes.io/name': name, 'app.kubernetes.io/part-of': 'jeex' });
const inNamespace = (name: string, more: Labels = {}): Labels => ({ 'kubernetes.io/metadata.name': name, ...more });

/** Who reaches whom: every way there is, and ways that must not be, which either end closes by itself. */
const checkNetwork: Check = (manifests) => {
  const host = envOf(containerOf(manifests, 'pgbouncer')).DATABASE_HOST ?? assert.fail();
  const clustered = host === 'postgres-rw';
  const database: Peer = { labels: { ...DATABASES[host], 'app.kubernetes.io/part-of': 'jeex' } };
  const service: Peer = { labels: named('jeex-persistence') };
  const caller: Peer = { labels: {}, namespace: inNamespace('agents', { 'persistence.jeex/caller': 'true' }) };
  const prometheus: Peer = {
    labels: { 'app.kubernetes.io/name': 'prometheus' },
    namespace: inNamespace('monitoring', { 'persistence.jeex/scraper': 'true' }),
  };
  const collector: Peer = {
    labels: { 'app.kubernetes.io/name': 'opentelemetry-collector' },
    namespace: inNamespace('monitoring', { 'persistence.jeex/collector': 'true' }),
  };
  const stranger: Peer = { labels: named('jeex-persistence'), namespace: inNamespace('elsewhere') };
  const neighbour: Peer = { labels: named('something') };
  const dns: Peer = { labels: { 'k8s-app': 'kube-dns' }, namespace: inNamespace('kube-system') };
  const operator: Peer = {
    labels: { 'app.kubernetes.io/name': 'cloudnative-pg' },
    namespace: inNamespace('cnpg-system'),
  };
  const ways: [string, Peer, Peer, number, boolean][] = [
    ['a caller, gRPC', caller, service, 50051, true],
    ['a caller, HTTPS', caller, service, 8080, true],
    ['a caller, health', caller, service, 50052, false],
    ['a caller, PgBouncer', caller, service, 6432, false],
    ['a caller, PostgreSQL', caller, database, 5432, false],
    ['Prometheus, metrics', prometheus, service, 8080, true],
    ['Prometheus, gRPC', prometheus, service, 50051, false],
    ['Prometheus, PostgreSQL', prometheus, database, 5432, false],
    ['a neighbour of Prometheus', { ...prometheus, labels: {} }, service, 8080, false],
    ['Prometheus of another namespace', { ...prometheus, namespace: inNamespace('elsewhere') }, service, 8080, false],
    ['the service, a collector', service, collector, 4317, true],
    ['the service, another port of it', service, collector, 4318, false],
    ['the service, a neighbour of the collector', service, { ...collector, labels: {} }, 4317, false],
    ['a stranger, gRPC', stranger, service, 50051, false],
    ['a stranger, PostgreSQL', stranger, database, 5432, false],
    ['a neighbour, gRPC', neighbour, service, 50051, false],
    ['a neighbour, PostgreSQL', neighbour, database, 5432, false],
    ['the service, PostgreSQL', service, database, 5432, true],
    ['the service, another port of it', service, database, 8000, false],
    ['the service, names', service, dns, 53, true],
    ['the service, a neighbour', service, neighbour, 5432, false],
    ['PostgreSQL, the service', database, service, 50051, false],
    ['a migration by hand, PostgreSQL', { labels: named('jeex-migrate') }, database, 5432, true],
    ['a migration by hand, the service', { labels: named('jeex-migrate') }, service, 50051, false],
    ['backups, PostgreSQL', { labels: named('jeex-backup') }, database, 5432, !clustered],
    ['the bootstrap, PostgreSQL', { labels: named('jeex-bootstrap') }, database, 5432, clustered],
    ['the operator, an instance', operator, database, 8000, clustered],
    ['an instance, another', database, database, 5432, clustered],
  ];
  for (const [what, from, to, port, expected] of ways) {
    const wrong = `${what}: ${expected ? 'closed' : 'open'}`;
    // A pod of another namespace has policies of its own.
    if (!to.namespace) assert.equal(passes(manifests, 'Ingress', to, from, port), expected, wrong);
    if (!from.namespace) assert.equal(passes(manifests, 'Egress', from, to, port), expected, wrong);
  }
};

export const LINK_CHECKS: Record<string, Check> = {
  'every name that a client verifies is in a certificate': checkCertificates,
  'what selects pods selects those it means': checkSelectors,
  'the network lets through what is needed, and no more': checkNetwork,
};
