import { readdirSync, readFileSync } from 'node:fs';

/** How the kernel counts the time of children that have ended. */
const TICKS_PER_SECOND = 100;
const NANOSECONDS = 1e9;

/** A file of /proc; empty when its process has ended meanwhile. */
const read = (path: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return '';
    throw error;
  }
};

const list = (path: string): string[] => {
  try {
    return readdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
};

/** What the threads of a process have used of the processors, in seconds, to the nanosecond; 0 when it has ended. */
export const cpuOf = (pid: number): number => {
  const threads = list(`/proc/${pid}/task`).map((thread) => read(`/proc/${pid}/task/${thread}/schedstat`));
  return threads.reduce((sum, schedstat) => sum + Number(schedstat.split(' ')[0] || 0), 0) / NANOSECONDS;
};

/** What the ended children of a process had used, in seconds. */
const endedChildrenCpu = (pid: number): number => {
  const stat = read(`/proc/${pid}/stat`);
  // The fields are counted after the command's name, which stands in brackets and may hold anything.
  const [user = 0, system = 0] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(13, 15)
    .map(Number);
  return (user + system) / TICKS_PER_SECOND;
};

const childrenOf = (pid: number): number[] =>
  read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean).map(Number);

/** The same of a server and of all processes it has started, those included that have ended. */
export const familyCpuOf = (pid: number): number =>
  childrenOf(pid).reduce((sum, child) => sum + cpuOf(child), cpuOf(pid) + endedChildrenCpu(pid));

/** What a process holds of the memory, in MiB. */
export const residentMib = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0) / 1024;

/** What the host has given of the processors to somebody else so far, and all the time there was, in seconds. */
export const hostTimes = (): { readonly stolen: number; readonly all: number } => {
  // Behind `cpu`: user, nice, system, idle, iowait, irq, softirq, steal; https://docs.kernel.org/filesystems/proc.html
  const ticks = /^cpu +(.*)/.exec(read('/proc/stat'))?.[1]?.split(' ').slice(0, 8).map(Number) ?? [];
  const all = ticks.reduce((sum, one) => sum + one, 0);
  return { stolen: (ticks[7] ?? 0) / TICKS_PER_SECOND, all: all / TICKS_PER_SECOND };
};
