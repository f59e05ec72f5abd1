/**
 * Makes the schemas beside this file from the projects' own releases: `node deploy/k8s/schemas/make.ts` (needs Go, for its
 * module proxy). Only the kinds that the manifests use, without descriptions, and strict: an unknown field is an error.
 * pgbackrest.json is written by hand.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

const KUBERNETES = 'k8s.io/kubernetes@v1.36.3';
const CERT_MANAGER = 'github.com/cert-manager/cert-manager@v1.21.2';
const CLOUDNATIVE_PG = 'github.com/cloudnative-pg/cloudnative-pg@v1.30.1';

const KUBERNETES_KINDS = [
  'v1/ConfigMap',
  'v1/Namespace',
  'v1/Secret',
  'v1/Service',
  'v1/ServiceAccount',
  'apps/v1/Deployment',
  'apps/v1/StatefulSet',
  'autoscaling/v2/HorizontalPodAutoscaler',
  'batch/v1/Job',
  'networking.k8s.io/v1/NetworkPolicy',
  'policy/v1/PodDisruptionBudget',
];

type Schema = { [keyword: string]: unknown };
interface Vendored {
  readonly source: string;
  /** Where the schema of each `apiVersion/kind` is. */
  readonly kinds: Record<string, Schema>;
  readonly definitions: Record<string, Schema>;
}

/** What says something to people or to an API server, and nothing about what is valid. */
const SILENT = /^(x-kubernetes-.*|description|default|example|externalDocs|format|title)$/;
const QUANTITY = 'io.k8s.apimachinery.pkg.api.resource.Quantity';
const INT_OR_STRING = 'io.k8s.apimachinery.pkg.util.intstr.IntOrString';

/** A schema without its descriptions, in which objects have no fields but the named ones. */
function strict(schema: Schema): Schema {
  if (schema['x-kubernetes-int-or-string'] === true) return { type: ['integer', 'string'] };
  const made: Schema = {};
  for (const [keyword, value] of Object.entries(schema)) {
    if (SILENT.test(keyword)) continue;
    if (keyword === 'properties') made[keyword] = mapValues(value as Record<string, Schema>, strict);
    else if (keyword === 'items' || keyword === 'additionalProperties') made[keyword] = strictOrPlain(value);
    else made[keyword] = value;
  }
  const open = schema['x-kubernetes-preserve-unknown-fields'] === true || 'additionalProperties' in schema;
  if ('properties' in schema && !open) made.additionalProperties = false;
  return made;
}

const strictOrPlain = (value: unknown): unknown => (typeof value === 'object' ? strict(value as Schema) : value);

const mapValues = <A, B>(of: Record<string, A>, map: (value: A) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(of).map(([name, value]) => [name, map(value)]));

/** The folder of a Go module's release. */
function download(module: string): string {
  const printed = execFileSync('go', ['mod', 'download', '-json', module], { encoding: 'utf8' });
  return (JSON.parse(printed) as { Dir: string }).Dir;
}

/** Kubernetes' own OpenAPI document, cut down to what the kinds reach. */
function kubernetes(folder: string): Vendored {
  const { definitions: all } = JSON.parse(readFileSync(join(folder, 'api/openapi-spec/swagger.json'), 'utf8')) as {
    definitions: Record<string, Schema>;
  };
  const kinds: Record<string, Schema> = {};
  const definitions: Record<string, Schema> = {};
  const take = (name: string): void => {
    if (name in definitions) return;
    const made = name === QUANTITY || name === INT_OR_STRING ? { type: ['number', 'string'] } : strict(all[name] ?? {});
    if (made.properties) delete (made.properties as Schema).status;
    definitions[name] = made;
    for (const [, next] of JSON.stringify(made).matchAll(/"\$ref":"#\/definitions\/([^"]+)"/g)) take(next as string);
  };
  for (const [name, schema] of Object.entries(all)) {
    for (const { group, version, kind } of groupsOf(schema)) {
      const id = `${group === '' ? version : `${group}/${version}`}/${kind}`;
      if (!KUBERNETES_KINDS.includes(id)) continue;
      take(name);
      kinds[id] = { $ref: `#/definitions/${name}` };
    }
  }
  return { source: KUBERNETES, kinds, definitions };
}

type Group = { readonly group: string; readonly version: string; readonly kind: string };
const groupsOf = (schema: Schema): Group[] => (schema['x-kubernetes-group-version-kind'] ?? []) as Group[];

interface Definition {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly { name: string; storage: boolean; schema: { openAPIV3Schema: Schema } }[];
  };
}

/** The kinds that an operator adds; an object's metadata is Kubernetes' own, and its status no manifest's business. */
function operator(source: string, folder: string, files: readonly string[]): Vendored {
  const kinds: Record<string, Schema> = {};
  for (const file of files) {
    const { spec } = parse(readFileSync(join(folder, file), 'utf8')) as Definition;
    const { name, schema } = spec.versions.find(({ storage }) => storage) ?? spec.versions[0] ?? fail(file);
    const made = strict(schema.openAPIV3Schema);
    const { status: _, ...properties } = made.properties as Record<string, Schema>;
    const metadata = { $ref: 'kubernetes#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta' };
    kinds[`${spec.group}/${name}/${spec.names.kind}`] = { ...made, properties: { ...properties, metadata } };
  }
  return { source, kinds, definitions: {} };
}

function fail(file: string): never {
  throw new Error(`${file} holds no version`);
}

const write = (name: string, vendored: Vendored): void =>
  writeFileSync(new URL(`${name}.json`, import.meta.url), `${JSON.stringify(vendored)}\n`);

const folder = download(KUBERNETES);
write('kubernetes', kubernetes(folder));
writeFileSync(new URL('LICENSE', import.meta.url), readFileSync(join(folder, 'LICENSE')));
write(
  'cert-manager',
  operator(CERT_MANAGER, download(CERT_MANAGER), [
    'deploy/crds/cert-manager.io_certificates.yaml',
    'deploy/crds/cert-manager.io_issuers.yaml',
  ]),
);
write(
  'cloudnative-pg',
  operator(CLOUDNATIVE_PG, download(CLOUDNATIVE_PG), [
    'config/crd/bases/postgresql.cnpg.io_clusters.yaml',
    'config/crd/bases/postgresql.cnpg.io_scheduledbackups.yaml',
  ]),
);
