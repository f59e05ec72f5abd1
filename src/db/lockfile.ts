import { randomUUID } from 'node:crypto';
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { processStart } from './processes.ts';

interface Holder {
  readonly pid: number;
  readonly start: string | null;
}

const isAlive = (holder: Holder): boolean => holder.start !== null && processStart(holder.pid) === holder.start;

function readHolder(text: string): Holder {
  try {
    return JSON.parse(text) as Holder;
  } catch {
    return { pid: 0, start: null };
  }
}

const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && (error as NodeJS.ErrnoException).code === code;

/** Makes the file with its content in one step, so that nobody reads it half written; false when it exists. */
function createWhole(path: string, content: string): boolean {
  const draft = `${path}.${randomUUID()}`;
  writeFileSync(draft, content, { mode: 0o644 });
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return false;
    throw error;
  } finally {
    rmSync(draft);
  }
}

/** Moves a dead holder's file away, unless another process has replaced it in the meantime. */
function removeDead(path: string, dead: string): void {
  const aside = `${path}.${randomUUID()}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return;
    throw error;
  }
  if (readFileSync(aside, 'utf8') !== dead) createWhole(path, readFileSync(aside, 'utf8'));
  rmSync(aside);
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return null;
    throw error;
  }
}

/** The process that holds the lock a file stands for; null when none does that still runs. */
export function livingHolder(path: string): number | null {
  const found = readIfThere(path);
  const holder = readHolder(found ?? '');
  return isAlive(holder) ? holder.pid : null;
}

/**
 * Takes a lock that a file stands for, and answers how to give it back. A holder that no longer runs is succeeded.
 * @throws Error with `taken(pid)` as its message when a living process holds the lock.
 */
export function lockFile(path: string, taken: (pid: number) => string): () => void {
  const own = JSON.stringify({ pid: process.pid, start: processStart(process.pid) });
  while (!createWhole(path, own)) {
    const found = readIfThere(path);
    if (found === null) continue;
    const holder = livingHolder(path);
    if (holder !== null) throw new Error(taken(holder));
    removeDead(path, found);
  }
  return () => {
    if (readIfThere(path) === own) rmSync(path);
  };
}
