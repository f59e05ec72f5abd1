import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';

/** A file system of limited size. */
export interface Disk {
  /** Where it is mounted. */
  readonly folder: string;
  /** Takes all that is free. */
  fill(): void;
  /** Gives it back. */
  free(): void;
}

export interface Disks {
  readonly data: Disk;
  readonly wal: Disk;
}

/** In bytes; the files behind them hold no more than what is written. */
const SIZES = { data: 40 * 2 ** 30, wal: 2 * 2 ** 30 } as const;
const BLOCK = 4096;

const run = (program: string, ...args: readonly string[]): void =>
  void execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });

const bytesFree = (folder: string): number => {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
};

/** A large piece first, then smaller ones: the file system's own tables take some of what is free. */
const fill = (folder: string, filler: string): void => {
  mkdirSync(filler, { recursive: true });
  for (let piece = bytesFree(folder), number = 0; piece >= BLOCK; number += 1) {
    try {
      run('fallocate', '--length', String(piece), join(filler, `${number}`));
      piece = bytesFree(folder);
    } catch {
      rmSync(join(filler, `${number}`), { force: true });
      piece = Math.floor(piece / 2 / BLOCK) * BLOCK;
    }
  }
};

/** Lets go of what is mounted at a folder; of a folder as any other, and of none: nothing. */
export const unmount = (folder: string): void => {
  try {
    run('umount', '--lazy', folder);
  } catch (error) {
    if (!/not mounted|not found|no mount point/.test(String(error))) throw error;
  }
};

const mount = (opened: DisposableStack, folder: string, name: keyof typeof SIZES): Disk => {
  const image = join(folder, `${name}.img`);
  const place = join(folder, name);
  mkdirSync(place);
  run('truncate', '--size', String(SIZES[name]), image);
  // Nothing is kept for root, so that full is full for everybody.
  run('mkfs.ext4', '-q', '-m', '0', image);
  run('mount', '-o', 'loop,noinit_itable', image, place);
  opened.defer(() => unmount(place));
  // PostgreSQL's account passes through it.
  chmodSync(place, 0o711);
  const filler = join(place, 'filler');
  return {
    folder: place,
    fill: () => fill(place, filler),
    free: () => rmSync(filler, { recursive: true, force: true }),
  };
};

/**
 * File systems in files below a folder, for the data and for its write-ahead log: with fsync they behave as disks do. They are
 * unmounted when what was opened is closed.
 * @returns why there are none: mounting takes root, and a kernel with loop devices
 */
export const openDisks = (opened: AsyncDisposableStack, folder: string): Disks | string => {
  using mounts = new DisposableStack();
  try {
    const disks = { data: mount(mounts, folder, 'data'), wal: mount(mounts, folder, 'wal') };
    const closing = mounts.move();
    opened.defer(() => closing.dispose());
    return disks;
  } catch (error) {
    return `no file systems can be mounted here: ${error instanceof Error ? error.message.split('\n')[0] : error}`;
  }
};
