import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { droppedLine, refusedLine } from './line.ts';
import type { Target } from './target.ts';

/** What waits to be written, in bytes: from here on there is no room, until half of it has left. */
const CAPACITY = 4 * 1024 * 1024;
/** What the calls that are in flight when calls are refused may add, in bytes: some 30 000 records. */
const RESERVE = 12 * 1024 * 1024;
/** How long, in milliseconds, a line waits for others to be written with. */
const GATHER_MS = 50;
/** When a target that could take nothing is tried again, in milliseconds: soon at first, at most this much later. */
const MAX_WAIT_MS = 100;
/** When a target that failed is tried again, in milliseconds. */
const RETRY_MS = 500;
/** At the end: after so long without anything taken, in milliseconds, the rest is given up, */
const STALLED_MS = 1000;
/** and so long, in milliseconds, it may take at most. */
const CLOSE_MS = 10_000;

export interface OutletOptions {
  readonly target: Target;
  /** What happens when there is no room: records are dropped, or calls are refused. */
  readonly full: 'drop' | 'refuse';
  /** Hears when records cannot be written, and when they can again. */
  readonly log: Logger;
}

/** Writes lines beside the work: nothing waits for it, and what it holds is bounded. */
export interface Outlet {
  /** Whether there is no room. */
  readonly full: boolean;
  /** Takes a line that stands for so many calls; without room for it they are counted. */
  write(line: string, calls: number): void;
  /** Counts a call that was refused because there is no room. */
  refuse(): void;
  /** Writes what is left, while something takes it, and closes the target. */
  close(): Promise<void>;
}

interface Chunk {
  text: string;
  bytes: number;
  calls: number;
}

export const createOutlet = ({ target, full: policy, log }: OutletOptions): Outlet => {
  const limit = policy === 'drop' ? CAPACITY : CAPACITY + RESERVE;
  const chunks: Chunk[] = [];
  let bytesHeld = 0;
  let callsHeld = 0;
  let full = false;
  let failing = false;
  let waits = 0;
  let dropped = 0;
  let refused = 0;
  let gathering: NodeJS.Timeout | null = null;
  let pumping: Promise<void> | null = null;
  let ending = false;
  let closed = false;

  const gather = () => {
    if (!pumping) gathering ??= setTimeout(pump, GATHER_MS);
  };

  const add = (line: string, calls: number) => {
    const text = `${line}\n`;
    const bytes = Buffer.byteLength(text);
    const last = chunks.at(-1);
    if (last && last.bytes + bytes <= target.chunkBytes) {
      last.text += text;
      last.bytes += bytes;
      last.calls += calls;
    } else {
      chunks.push({ text, bytes, calls });
    }
    bytesHeld += bytes;
    callsHeld += calls;
    gather();
  };

  const fill = () => {
    full = true;
    log.warn(
      { bytes: bytesHeld },
      policy === 'drop'
        ? 'access records are not taken off: from now on they are dropped and counted'
        : 'access records are not taken off: from now on calls are refused',
    );
  };

  const tellLosses = () => {
    if (dropped > 0) add(droppedLine(dropped), 0);
    if (refused > 0) add(refusedLine(refused), 0);
    dropped = 0;
    refused = 0;
  };

  const empty = () => {
    full = false;
    log.warn({ dropped, refused }, 'access records flow again');
    tellLosses();
  };

  const fail = (error: unknown): number => {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return Math.min(2 ** waits++, MAX_WAIT_MS);
    if (!failing) log.error({ err: error }, 'access records cannot be written; it is tried again');
    failing = true;
    return RETRY_MS;
  };

  const passed = (bytes: number) => {
    if (failing) log.warn('access records are written again');
    failing = false;
    waits = 0;
    bytesHeld -= bytes;
    if (full && bytesHeld <= CAPACITY / 2) empty();
  };

  const writeChunk = async (chunk: Chunk) => {
    let rest = Buffer.from(chunk.text);
    while (rest.length > 0 && !closed) {
      try {
        const taken = await target.write(rest);
        rest = rest.subarray(taken);
        passed(taken);
      } catch (error) {
        await sleep(fail(error), undefined, { ref: false });
      }
    }
  };

  /** What comes while it writes gathers again, until it is a whole chunk: a write costs more than many lines. */
  const writeAll = async () => {
    do {
      const chunk = chunks.shift();
      if (!chunk) break;
      await writeChunk(chunk);
      if (!closed) callsHeld -= chunk.calls;
    } while (!closed && (ending || chunks.length > 1));
    pumping = null;
    if (chunks.length > 0 && !closed) gather();
  };

  const pump = () => {
    if (gathering) clearTimeout(gathering);
    gathering = null;
    pumping ??= Promise.resolve().then(writeAll);
    return pumping;
  };

  /** Waits until all is written, or nothing is taken any more. */
  const drain = async () => {
    const end = performance.now() + CLOSE_MS;
    const done = new AbortController();
    pump().finally(() => done.abort());
    let before: number;
    do {
      before = bytesHeld;
      await sleep(STALLED_MS, undefined, { signal: done.signal }).catch(() => {});
    } while (bytesHeld > 0 && bytesHeld !== before && performance.now() < end);
  };

  return {
    get full() {
      return full;
    },
    write: (line, calls) => {
      if (closed) return;
      if (!full && bytesHeld + line.length > CAPACITY) fill();
      const room = policy === 'drop' ? !full : bytesHeld + line.length <= limit;
      if (room) add(line, calls);
      else dropped += calls;
    },
    refuse: () => {
      refused += 1;
    },
    close: async () => {
      const lost = { dropped, refused };
      tellLosses();
      ending = true;
      await drain();
      closed = true;
      if (bytesHeld > 0) {
        lost.dropped += callsHeld;
        log.error(lost, 'access records are lost: they could not be written before the end');
      }
      await target.close();
    },
  };
};
