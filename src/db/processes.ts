import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** One field of `ps` about a process, or null when there is no such process. */
function ps(pid: number, field: string): string | null {
  try {
    const output = execFileSync('ps', ['-o', `${field}=`, '-p', String(pid)], { encoding: 'utf8', stdio: 'pipe' });
    return output.trim() || null;
  } catch {
    return null;
  }
}

function readProc(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

/**
 * When a process started, in a form that only this process on this boot has; null when it is not running.
 * A process id alone does not identify: the system gives it to another one later.
 */
export function processStart(pid: number): string | null {
  if (process.platform !== 'linux') return ps(pid, 'lstart');
  const stat = readProc(`/proc/${pid}/stat`);
  // The fields are counted after the command's name, which stands in brackets and may hold anything.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  const isZombie = fields?.[0] === 'Z' || fields?.[0] === 'X';
  const boot = readProc('/proc/sys/kernel/random/boot_id')?.trim() ?? '';
  return fields && !isZombie ? `${boot}/${fields[19]}` : null;
}

/** A running process's command line, its arguments separated by spaces; null when it is not running. */
export function commandLine(pid: number): string | null {
  if (process.platform !== 'linux') return ps(pid, 'command');
  if (processStart(pid) === null) return null;
  return readProc(`/proc/${pid}/cmdline`)?.replaceAll('\0', ' ').trim() ?? null;
}

/** Waits until the process has ended; false when it still runs after `milliseconds`. */
export async function ended(pid: number, milliseconds: number): Promise<boolean> {
  const deadline = Date.now() + milliseconds;
  while (processStart(pid) !== null) {
    if (Date.now() > deadline) return false;
    await sleep(20);
  }
  return true;
}
