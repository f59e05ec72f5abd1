import { readFileSync } from 'node:fs';
import type { Replica } from './replica.ts';
import { floors, type Point, percentPerHour } from './slope.ts';

/** How a process's memory went. */
export interface Memory {
  readonly name: string;
  readonly pid: number;
  /** How long it was measured, in minutes. */
  readonly minutes: number;
  readonly residentMiB: { readonly first: number; readonly last: number; readonly most: number };
  readonly heapMiB: { readonly first: number; readonly last: number } | null;
  /** Of a process's later life, in percent; null for one that did not live long enough to tell. */
  readonly residentPercentPerHour: number | null;
  readonly heapPercentPerHour: number | null;
}

const SAMPLE_MS = 1_000;
const MINUTE_MS = 60_000;
const MIB = 2 ** 20;
/** A process that is younger fills its caches and compiles its code. */
const WARM_UP = 0.25;
/** From less than this, in minutes, no slope is told. */
const TELLING_MINUTES = 20;

interface Samples {
  readonly name: string;
  readonly resident: Point[];
  readonly heap: Point[];
}

/** In bytes. @returns null for a process that has ended */
const residentOf = (pid: number): number | null => {
  try {
    const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return kib === undefined ? null : Number(kib) * 1024;
  } catch {
    return null;
  }
};

/** Measures the processes of replicas until it is closed. */
export const watchMemory = (replicas: readonly Replica[]): Disposable & { report(): readonly Memory[] } => {
  const byPid = new Map<number, Samples>();
  const sample = (): void => {
    for (const { name, pid, heap } of replicas) {
      const resident = pid === null ? null : residentOf(pid);
      if (pid === null || resident === null) continue;
      const samples = byPid.get(pid) ?? { name, resident: [], heap: [] };
      byPid.set(pid, samples);
      const [at, used] = [performance.now(), heap()];
      samples.resident.push({ at, value: resident });
      if (used !== null) samples.heap.push({ at, value: used });
    }
  };
  const timer = setInterval(sample, SAMPLE_MS);
  return {
    [Symbol.dispose]: () => clearInterval(timer),
    report: () => [...byPid].map(([pid, samples]) => summarize(pid, samples)),
  };
};

const mib = (points: readonly Point[], place: number): number => Math.round((points.at(place)?.value ?? 0) / MIB);

const summarize = (pid: number, { name, resident, heap }: Samples): Memory => {
  const [began, ended] = [resident[0]?.at ?? 0, resident.at(-1)?.at ?? 0];
  const minutes = (ended - began) / MINUTE_MS;
  const slope = (points: readonly Point[]): number | null => {
    if (minutes < TELLING_MINUTES) return null;
    const late = points.filter(({ at }) => at >= began + WARM_UP * (ended - began));
    return percentPerHour(floors(late, MINUTE_MS));
  };
  return {
    name,
    pid,
    minutes,
    residentMiB: {
      first: mib(resident, 0),
      last: mib(resident, -1),
      most: Math.round(Math.max(...resident.map(({ value }) => value)) / MIB),
    },
    heapMiB: heap.length === 0 ? null : { first: mib(heap, 0), last: mib(heap, -1) },
    residentPercentPerHour: slope(resident),
    heapPercentPerHour: slope(heap),
  };
};
