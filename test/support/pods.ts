import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import type { Ended } from './command.ts';
import { docker, must, output } from './docker.ts';
import { KUBECTL } from './kubectl.ts';
import type { Container, Labels, Manifest, Pod, Probe, Volume } from './manifest-types.ts';
import { containersOf, ofKind, workloadsOf } from './manifests.ts';

/** A pod of manifests that runs with Docker. */
export interface RunningPod {
  /** Ends its containers as the kubelet does, sidecars last: their exit codes, in the order of their ends. */
  end(): Promise<Record<string, number>>;
  logs(): Promise<string>;
}

export interface Pods {
  /** Starts a workload's pod, each container ready before the next one. @throws Error with the log of the one that is not */
  start(workload: string): Promise<RunningPod>;
  /** Runs a command of the service's image in a container beside the pods, whose end is the caller's to judge. */
  beside(command: readonly string[]): Promise<Ended>;
  /** Removes everything. */
  close(): Promise<void>;
}

/**
 * Runs pods as the kubelet would, as far as Docker can: users and groups, capabilities, read-only root file systems, volumes
 * with their modes, one network for a pod's containers, names of Services, memory limits, startup probes, and the order of
 * start and end. Not policies, and nothing that a controller does.
 * @param name of everything it makes, and of nothing else
 * @param given files that commands beside the pods find under /run/given
 */
export const createPods = async (manifests: readonly Manifest[], name: string, given: Labels): Promise<Pods> => {
  const caller = `${name}-caller`;
  const containers = [caller];
  const volumes = new Set([`${name}-given`]);

  const open = async (): Promise<void> => {
    await must(['network', 'create', name]);
    const files = Object.entries(given).map(([path, text]): File => [`given/${path}`, 0o444, encoded(text)]);
    await fill(new Map([['given', `${name}-given`]]), 0, files);
    const command = ['--entrypoint', 'node', 'jeex-persistence:dev', '--eval', 'setInterval(() => {}, 1e6)'];
    const options = ['--init', '--network', name, '--volume', `${name}-given:/run/given:ro`];
    await must(['run', '--detach', '--name', caller, ...options, ...command]);
  };

  /** Makes a pod's volumes; an earlier pod's stay as they are. */
  const prepare = async (workload: string, pod: Pod): Promise<void> => {
    const group = pod.securityContext.fsGroup ?? 0;
    const mounted = containersOf(pod).flatMap(({ volumeMounts = [] }) => volumeMounts.map((mount) => mount.name));
    const fresh = new Map<string, string>();
    const files: File[] = [];
    for (const kind of new Set(mounted)) {
      const id = `${name}-${workload}-${kind}`;
      if (volumes.has(id)) continue;
      volumes.add(id);
      const volume = pod.volumes?.find((one) => one.name === kind);
      if (volume?.emptyDir) await makeMemory(id, volume.emptyDir.sizeLimit, group);
      else fresh.set(kind, id);
      if (volume) files.push(...filesOf(manifests, volume));
    }
    if (fresh.size > 0) await fill(fresh, group, files);
  };

  /** Starts what holds the pod's network, under the names of its Services and its own. */
  const hold = async (workload: string, labels: Labels): Promise<string> => {
    const id = `${name}-${workload}-pod`;
    const aliases = ofKind(manifests, 'Service')
      .filter(({ spec }) => Object.entries(spec.selector).every(([label, value]) => labels[label] === value))
      .map(({ metadata }) => metadata.name);
    const names = [...aliases, podName(workload)].flatMap((alias) => ['--network-alias', alias]);
    containers.push(id);
    await must(['run', '--detach', '--name', id, '--network', name, ...names, KUBECTL, 'sleep', 'infinity']);
    return id;
  };

  const run = async (workload: string, pod: Pod, container: Container): Promise<string> => {
    const id = `${name}-${container.name}`;
    containers.push(id);
    const { command = [], args = [], volumeMounts = [] } = container;
    await must([
      ...['run', '--detach', '--name', id, '--network', `container:${name}-${workload}-pod`],
      ...confined(pod, container),
      // Docker would copy what the image has there, with its mode.
      ...volumeMounts.flatMap(({ name: kind, mountPath, readOnly }) => [
        '--volume',
        `${name}-${workload}-${kind}:${mountPath}:nocopy${readOnly ? ',ro' : ''}`,
      ]),
      ...(command[0] ? ['--entrypoint', command[0]] : []),
      container.image,
      ...[...command.slice(1), ...args],
    ]);
    return id;
  };

  const beside: Pods['beside'] = (command) => docker(['exec', caller, ...command]);

  /** Asks a probe's question once; that of gRPC from outside the pod, where the kubelet is. */
  const ask = async (workload: string, id: string, { exec, grpc }: Probe): Promise<boolean> => {
    const asked = exec
      ? docker(['exec', id, ...exec.command])
      : beside([...HEALTH, `${podName(workload)}:${grpc?.port}`, '--service', `${grpc?.service}`]);
    return (await asked).code === 0;
  };

  const start: Pods['start'] = async (workload) => {
    const { pod, labels } = workloadsOf(manifests).find((one) => one.name === workload) ?? assert.fail(workload);
    await prepare(workload, pod);
    const own = [await hold(workload, labels)];
    for (const container of containersOf(pod)) {
      const id = await run(workload, pod, container);
      own.unshift(id);
      const { startupProbe: probe } = container;
      if (isOnce(pod, container)) await finished(id);
      else if (probe) await passes(id, probe, () => ask(workload, id, probe));
    }
    const logs = async () => (await Promise.all(own.map(logOf))).join('');
    return { logs, end: () => endAll(own, name, pod.terminationGracePeriodSeconds) };
  };

  const close = async (): Promise<void> => {
    await docker(['rm', '--force', '--volumes', ...containers]);
    await docker(['volume', 'rm', '--force', ...volumes]);
    await docker(['network', 'rm', name]);
  };

  await open().catch(async (error) => {
    await close();
    throw error;
  });
  return { start, beside, close };
};

const HEALTH = ['jeex-persistence', 'health', '--address'];
const podName = (workload: string): string => `pod-of-${workload}`;
const encoded = (text: string): string => Buffer.from(text).toString('base64');

const isOnce = ({ initContainers = [] }: Pod, container: Container): boolean =>
  initContainers.includes(container) && container.restartPolicy !== 'Always';

/** Who a container is, what it may do, and what it is told. */
const confined = (pod: Pod, { securityContext: context, env = [], resources }: Container): string[] => {
  const { runAsUser = context?.runAsUser, runAsGroup = context?.runAsGroup, fsGroup } = pod.securityContext;
  return [
    ...['--user', `${runAsUser}:${runAsGroup}`, '--group-add', `${fsGroup}`],
    ...['--memory', `${bytesOf(resources.limits.memory)}`],
    ...(context?.capabilities?.drop ?? []).flatMap((capability) => ['--cap-drop', capability]),
    ...(context?.allowPrivilegeEscalation === false ? ['--security-opt', 'no-new-privileges'] : []),
    ...(context?.readOnlyRootFilesystem ? ['--read-only'] : []),
    ...env.flatMap(({ name, value }) => ['--env', `${name}=${value}`]),
  ];
};

/** Where it goes, its mode, its content in base64. */
type File = readonly [path: string, mode: number, base64: string];

/** What a Secret or a ConfigMap puts into a volume. */
const filesOf = (manifests: readonly Manifest[], { name: folder, secret, configMap }: Volume): File[] => {
  const kind = secret ? 'Secret' : 'ConfigMap';
  const name = secret?.secretName ?? configMap?.name;
  const { data = {} } = manifests.find((one) => one.kind === kind && one.metadata.name === name) ?? {};
  const mode = secret?.defaultMode ?? configMap?.defaultMode ?? 0;
  const items = secret?.items ?? configMap?.items ?? Object.keys(data).map((key) => ({ key, path: key }));
  return items.map(({ key, path }) => {
    const value = data[key] ?? assert.fail(`there is no ${kind} ${name} with ${key}`);
    return [`${folder}/${path}`, mode, secret ? value : encoded(value)];
  });
};

const makeMemory = async (id: string, size: string, group: number): Promise<void> => {
  const options = `o=size=${bytesOf(size)},mode=2777,gid=${group}`;
  await must(['volume', 'create', '--opt', 'type=tmpfs', '--opt', 'device=tmpfs', '--opt', options, id]);
};

/** Makes volumes whose root the group may write, with files of root that the group may see by their mode. */
const fill = async (volumes: ReadonlyMap<string, string>, group: number, files: readonly File[]): Promise<void> => {
  const mounts = [...volumes].flatMap(([folder, id]) => ['--volume', `${id}:/to/${folder}:nocopy`]);
  const script = `cd /to && chown 0:${group} * && chmod 2775 * && while read -r path mode data; do
    base64 --decode <<<"$data" >"$path" && chown 0:${group} "$path" && chmod "$mode" "$path"
  done`;
  const input = files.map(([path, mode, data]) => `${path} ${mode.toString(8)} ${data}\n`).join('');
  const options = ['--rm', '--interactive', '--network', 'none', '--user', '0', ...mounts];
  await must(['run', ...options, KUBECTL, 'bash', '-ec', script], { input });
};

const UNITS: Readonly<Record<string, number>> = { Mi: 1024 ** 2, Gi: 1024 ** 3 };

/** Kubernetes' quantity of memory in bytes. */
const bytesOf = (quantity: string): number => {
  const [, number, unit = ''] = /^(\d+)([MG]i)$/.exec(quantity) ?? assert.fail(quantity);
  return Number(number) * (UNITS[unit] ?? assert.fail(unit));
};

const logOf = async (id: string): Promise<string> => {
  const { out, err } = await docker(['logs', id]);
  return `--- ${id}\n${out}${err}`;
};

/** Waits until a container that runs once has done so. @throws Error with its log, when it failed */
const finished = async (id: string): Promise<void> => {
  const code = Number(await must(['wait', id]));
  if (code !== 0) output({ code, out: '', err: await logOf(id) });
};

/** Asks as often as the probe says. @throws Error with the container's log, when it never passes */
const passes = async (id: string, probe: Probe, asked: () => Promise<boolean>): Promise<void> => {
  for (let failures = 0; !(await asked()); failures += 1) {
    const running = (await must(['inspect', '--format', '{{.State.Running}}', id])).trim() === 'true';
    if (!running || failures >= probe.failureThreshold) throw new Error(`it did not start:\n${await logOf(id)}`);
    await setTimeout(probe.periodSeconds * 1000);
  }
};

/** Stops containers one by one, within the grace (in seconds) that each has, and removes them: their exit codes. */
const endAll = async (ids: readonly string[], prefix: string, grace: number): Promise<Record<string, number>> => {
  const codes: Record<string, number> = {};
  for (const id of ids.slice(0, -1)) {
    await must(['stop', '--time', `${grace}`, id]);
    codes[id.slice(prefix.length + 1)] = Number(await must(['inspect', '--format', '{{.State.ExitCode}}', id]));
  }
  await must(['rm', '--force', ...ids]);
  return codes;
};
