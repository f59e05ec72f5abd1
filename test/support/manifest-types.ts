/** Kubernetes' objects as far as the tests look at them; what else they may hold, their schemas say. */

export interface Labels {
  readonly [name: string]: string;
}

interface Selector {
  readonly matchLabels?: Labels;
}

export interface Probe {
  readonly periodSeconds: number;
  readonly failureThreshold: number;
  readonly grpc?: { readonly port: number; readonly service: string };
  readonly exec?: { readonly command: readonly string[] };
}

interface Variable {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: { readonly secretKeyRef: Key };
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly restartPolicy?: string;
  readonly terminationMessagePolicy?: string;
  readonly env?: readonly Variable[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly startupProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly securityContext?: SecurityContext;
  readonly resources: { readonly limits: { readonly memory: string } };
  readonly volumeMounts?: readonly Mount[];
}

export interface Mount {
  readonly name: string;
  readonly mountPath: string;
  readonly readOnly?: boolean;
}

interface SecurityContext {
  readonly runAsNonRoot?: boolean;
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  readonly fsGroup?: number;
  readonly seccompProfile?: { readonly type: string };
  readonly allowPrivilegeEscalation?: boolean;
  readonly readOnlyRootFilesystem?: boolean;
  readonly capabilities?: { readonly drop?: readonly string[]; readonly add?: readonly string[] };
}

interface Items {
  readonly defaultMode: number;
  readonly items?: readonly { readonly key: string; readonly path: string }[];
}

export interface Volume {
  readonly name: string;
  readonly secret?: Items & { readonly secretName: string };
  readonly configMap?: Items & { readonly name: string };
  readonly emptyDir?: { readonly medium: string; readonly sizeLimit: string };
}

export interface Pod {
  readonly serviceAccountName: string;
  readonly automountServiceAccountToken: boolean;
  readonly enableServiceLinks: boolean;
  readonly terminationGracePeriodSeconds: number;
  readonly hostNetwork?: boolean;
  readonly hostPID?: boolean;
  readonly hostIPC?: boolean;
  readonly securityContext: SecurityContext;
  readonly initContainers?: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes?: readonly Volume[];
}

/** A pod that no workload makes. */
export interface PodObject {
  readonly kind: 'Pod';
  readonly metadata: { readonly name: string; readonly namespace: string; readonly labels: Labels };
  readonly spec: Pod & { readonly restartPolicy: string };
}

interface Template {
  readonly metadata: { readonly labels: Labels };
  readonly spec: Pod;
}

/** What a network policy lets through. */
export interface Rule {
  readonly from?: readonly PolicyPeer[];
  readonly to?: readonly PolicyPeer[];
  readonly ports?: readonly { readonly port: number | string }[];
}

export interface PolicyPeer {
  readonly podSelector?: Selector;
  readonly namespaceSelector?: Selector;
}

/** A key of a Secret. */
export interface Key {
  readonly name: string;
  readonly key: string;
}

/** The `spec` of each kind. */
export interface Specs {
  readonly Deployment: {
    readonly replicas?: number;
    readonly minReadySeconds: number;
    readonly progressDeadlineSeconds: number;
    readonly strategy: { readonly rollingUpdate: { readonly maxSurge: number; readonly maxUnavailable: number } };
    readonly selector: { readonly matchLabels: Labels };
    readonly template: Template;
  };
  readonly StatefulSet: {
    readonly serviceName: string;
    readonly selector: { readonly matchLabels: Labels };
    readonly template: Template;
  };
  readonly Job: { readonly template: Template };
  readonly Service: {
    readonly selector: Labels;
    readonly ports: readonly { readonly name: string; readonly port: number; readonly targetPort: string }[];
  };
  readonly PodDisruptionBudget: { readonly selector: { readonly matchLabels: Labels } };
  readonly HorizontalPodAutoscaler: {
    readonly scaleTargetRef: { readonly kind: 'Deployment'; readonly name: string };
    readonly maxReplicas: number;
    readonly behavior: { readonly scaleDown: { readonly policies: readonly object[] } };
  };
  readonly NetworkPolicy: {
    readonly podSelector: Selector;
    readonly policyTypes: readonly ('Ingress' | 'Egress')[];
    readonly ingress?: readonly Rule[];
    readonly egress?: readonly Rule[];
  };
  readonly Certificate: {
    readonly secretName: string;
    readonly isCA?: boolean;
    readonly dnsNames?: readonly string[];
    readonly ipAddresses?: readonly string[];
    readonly usages: readonly string[];
    readonly privateKey: { readonly rotationPolicy: string };
    readonly issuerRef: { readonly kind: string; readonly name: string };
  };
  readonly Issuer: { readonly ca?: { readonly secretName: string } };
  readonly Cluster: {
    readonly instances: number;
    readonly certificates: { readonly serverTLSSecret: string; readonly serverCASecret: string };
    readonly postgresql: {
      readonly synchronous: object;
      readonly pg_hba: readonly string[];
      readonly parameters: Readonly<Record<string, string>>;
    };
  };
  readonly Stanza: object;
  readonly ScheduledBackup: object;
  readonly ServiceAccount: undefined;
  readonly Namespace: undefined;
  readonly ConfigMap: undefined;
  readonly Secret: undefined;
}

export type Kind = keyof Specs;

export interface ManifestOf<K extends Kind> {
  readonly apiVersion: string;
  readonly kind: K;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Labels };
  readonly spec: Specs[K];
  /** Of a ConfigMap; of a Secret in base64. */
  readonly data?: Labels;
}

/** An object of any kind, told apart by it. */
export type Manifest = { [K in Kind]: ManifestOf<K> }[Kind];
