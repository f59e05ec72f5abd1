import { constants, write } from 'node:fs';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import { promisify } from 'node:util';

/** What access records are written to. */
export interface Target {
  /** How much to write at once. */
  readonly chunkBytes: number;
  /** Takes what it can at once, and answers how many bytes that was; rejects with EAGAIN when it can take none now. */
  write(bytes: Buffer): Promise<number>;
  close(): Promise<void>;
}

/** Where access records go. */
export interface Place {
  /** `stdout`, `stderr`, or a file's path. */
  readonly to: string;
  /** Whether the file is the service's own: nobody else reads it, and nobody else rotates it. */
  readonly own: boolean;
}

/** How often, in milliseconds, a file is looked for by its name while it is written to. */
const LOOK_MS = 1000;
/** From this size on, in bytes, the service moves a file of its own out of the way, and deletes none: that is for people. */
const MAX_OWN_BYTES = 64 * 1024 * 1024;

// Non-blocking, for a pipe with a name: a write that waits for its reader would hold a thread of the pool that files, DNS
// and cryptography share, and keep the process from ending. For files it means nothing.
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

/** @throws Error naming ACCESS_LOG, when it cannot be written to */
export const openTarget = async (place: Place): Promise<Target> => {
  if (place.to === 'stdout' || place.to === 'stderr') return standardTarget(place.to);
  try {
    return await fileTarget(place);
  } catch (cause) {
    throw new Error(`ACCESS_LOG: ${place.to} cannot be written to (${whyNot(cause)}). Mend that, or set another.`, {
      cause,
    });
  }
};

const whyNot = (error: unknown): string => {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'ENXIO' ? 'nobody reads this pipe' : (code ?? message);
};

const CHUNK_BYTES = 64 * 1024;
/** What a pipe takes all or none of (PIPE_BUF), so that lines stay whole where the service's own log is written too. */
const SHARED_CHUNK_BYTES = 4096;

const writeTo = promisify(write);

const standardTarget = (name: 'stdout' | 'stderr'): Target => {
  // Node makes a pipe or a socket there non-blocking as soon as its stream is asked for.
  const { fd } = process[name];
  return {
    chunkBytes: name === 'stderr' ? SHARED_CHUNK_BYTES : CHUNK_BYTES,
    write: async (bytes) => (await writeTo(fd, bytes)).bytesWritten,
    close: async () => {},
  };
};

const openFile = ({ to, own }: Place): Promise<FileHandle> =>
  own ? open(to, FLAGS | constants.O_NOFOLLOW, 0o600) : open(to, FLAGS, 0o640);

/** A file that is opened anew when its name stands for another one, or for none: it was rotated. */
const fileTarget = async (place: Place): Promise<Target> => {
  let handle = await openFile(place);
  let opened = await handle.stat();
  let nextLook = 0;

  const isThere = async (): Promise<boolean> => {
    const found = await stat(place.to).catch(() => null);
    if (found?.ino !== opened.ino || found.dev !== opened.dev) return false;
    if (!place.own || found.size < MAX_OWN_BYTES) return true;
    await rename(place.to, `${place.to}.${new Date().toISOString().replaceAll(/[-:.]/g, '')}`);
    return false;
  };

  const follow = async (): Promise<void> => {
    const now = performance.now();
    if (!opened.isFile() || now < nextLook) return;
    if (!(await isThere())) {
      const before = handle;
      handle = await openFile(place);
      opened = await handle.stat();
      await before.close();
    }
    nextLook = now + LOOK_MS;
  };

  return {
    chunkBytes: CHUNK_BYTES,
    write: async (bytes) => {
      await follow();
      return (await handle.write(bytes)).bytesWritten;
    },
    close: () => handle.close(),
  };
};
