import { readFileSync } from 'node:fs';
import { Ajv, type ValidateFunction } from 'ajv';
import { parse, parseAllDocuments } from 'yaml';
import type { Container, Kind, Labels, Manifest, ManifestOf, Pod } from './manifest-types.ts';

/** Where the Kubernetes manifests are. */
export const K8S = new URL('../../deploy/k8s/', import.meta.url);

/** A text of YAML as Kubernetes reads it: 1.1, where 0440 is octal. */
export const parseManifests = (text: string): Manifest[] =>
  parseAllDocuments(text, { version: '1.1', merge: false }).map((document) => {
    if (document.errors[0]) throw document.errors[0];
    return document.toJS() as Manifest;
  });

interface Kustomization {
  readonly resources: readonly string[];
  readonly configMapGenerator?: readonly { readonly name: string; readonly files: readonly string[] }[];
}

/** The whole objects of a folder with a kustomization, its generated ConfigMaps among them; nothing of its patches. */
export const readFolder = (folder: string): Manifest[] => {
  const at = new URL(`${folder}/`, K8S);
  const read = (file: string): string => readFileSync(new URL(file, at), 'utf8');
  const { resources, configMapGenerator = [] } = parse(read('kustomization.yaml')) as Kustomization;
  const generated = configMapGenerator.flatMap(({ name, files }) => {
    const data = files.map((file) => file.split('=') as [string, string]).map(([key, path]) => [key, read(path)]);
    const made = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: Object.fromEntries(data) };
    return parseManifests(JSON.stringify(made));
  });
  return [
    ...resources.filter((file) => file.endsWith('.yaml')).flatMap((file) => parseManifests(read(file))),
    ...generated,
  ];
};

const VENDORED = ['kubernetes', 'cert-manager', 'cloudnative-pg', 'pgbackrest'] as const;

/** What checks an object of each `apiVersion/kind`. */
const validators = (): Map<string, ValidateFunction> => {
  const ajv = new Ajv({ strict: true, strictTypes: false, allErrors: true, unicodeRegExp: false });
  ajv.addVocabulary(['source', 'kinds']);
  const found = new Map<string, ValidateFunction>();
  for (const name of VENDORED) {
    const document = JSON.parse(readFileSync(new URL(`schemas/${name}.json`, K8S), 'utf8')) as { kinds: object };
    ajv.addSchema(document, name);
    for (const kind of Object.keys(document.kinds)) {
      found.set(kind, ajv.compile({ $ref: `${name}#/kinds/${kind.replaceAll('/', '~1')}` }));
    }
  }
  return found;
};

let known: Map<string, ValidateFunction> | undefined;

/** What an object has that its kind does not, or lacks; an object of an unknown kind is wrong as a whole. */
export const faultsOf = (manifest: Manifest): string[] => {
  known ??= validators();
  const validate = known.get(`${manifest.apiVersion}/${manifest.kind}`);
  if (!validate) return [`there is no schema of ${manifest.apiVersion}/${manifest.kind}`];
  if (validate(manifest as unknown)) return [];
  return (validate.errors ?? []).map(({ instancePath, message, params }) => {
    const named = 'additionalProperty' in params ? ` (${params.additionalProperty})` : '';
    return `${manifest.kind} ${manifest.metadata.name}${instancePath}: ${message}${named}`;
  });
};

export const ofKind = <K extends Kind>(manifests: readonly Manifest[], kind: K): ManifestOf<K>[] =>
  (manifests as readonly ManifestOf<Kind>[]).filter((manifest): manifest is ManifestOf<K> => manifest.kind === kind);

/** The one object of a kind and name. @throws Error when there is none */
export const find = <K extends Kind>(manifests: readonly Manifest[], kind: K, name: string): ManifestOf<K> => {
  const found = ofKind(manifests, kind).find(({ metadata }) => metadata.name === name);
  if (!found) throw new Error(`there is no ${kind} ${name}`);
  return found;
};

/** A workload's pods: their labels and what they are. */
export interface Workload {
  readonly name: string;
  readonly labels: Labels;
  readonly pod: Pod;
}

export const workloadsOf = (manifests: readonly Manifest[]): Workload[] =>
  manifests.flatMap(({ kind, metadata, spec }) => {
    if (kind !== 'Deployment' && kind !== 'StatefulSet' && kind !== 'Job') return [];
    const { template } = spec;
    return [{ name: metadata.name, labels: template.metadata.labels, pod: template.spec }];
  });

export const containersOf = ({ initContainers = [], containers }: Pod): Container[] => [
  ...initContainers,
  ...containers,
];

/** A container's environment as far as it is written down. */
export const envOf = ({ env = [] }: Container): Record<string, string> =>
  Object.fromEntries(env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));

/** The container of that name, in whichever workload. @throws Error when there is none */
export const containerOf = (manifests: readonly Manifest[], name: string): Container => {
  const found = workloadsOf(manifests)
    .flatMap(({ pod }) => containersOf(pod))
    .find((container) => container.name === name);
  if (!found) throw new Error(`there is no container ${name}`);
  return found;
};

/** What of its volumes a container sees, as paths; a directory that it may write ends with a slash. */
export const pathsOf = ({ volumes = [] }: Pod, { volumeMounts = [] }: Container): string[] =>
  volumeMounts.flatMap(({ name, mountPath }) => {
    const volume = volumes.find((one) => one.name === name);
    const items = volume?.secret?.items ?? volume?.configMap?.items;
    return items?.map(({ path }) => `${mountPath}/${path}`) ?? [`${mountPath}/`];
  });
