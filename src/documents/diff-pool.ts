import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Refusal } from '../refusal.ts';
import type { DiffResult } from './diff.ts';
import type { DiffJob } from './diff-worker.ts';

export interface DiffPoolOptions {
  /** Threads, made when they are needed. */
  readonly workers: number;
  /** Jobs that may wait for a thread. */
  readonly queue: number;
  /** Milliseconds after which a job's thread is ended. */
  readonly timeoutMs: number;
  readonly worker: URL;
}

/** Runs differences beside the event loop. */
export interface DiffPool {
  /** @throws Refusal OVERLOADED when too many wait, or when the job takes too long; the signal's reason when it aborts first */
  run(job: DiffJob, signal: AbortSignal): Promise<DiffResult>;
}

interface Task {
  readonly job: DiffJob;
  readonly resolve: (result: DiffResult) => void;
  readonly reject: (error: unknown) => void;
}

/** The worker's file beside this one, in whichever language this one runs. */
const WORKER = new URL(`./diff-worker${extname(import.meta.url)}`, import.meta.url);

const DEFAULTS: DiffPoolOptions = {
  workers: Math.max(1, Math.min(2, availableParallelism() - 1)),
  queue: 64,
  timeoutMs: 8000,
  worker: WORKER,
};

const overloaded = (message: string): Refusal => new Refusal('OVERLOADED', message);

/** A small pool of threads, which do not keep the process alive while they have nothing to do. */
export const createDiffPool = (given: Partial<DiffPoolOptions> = {}): DiffPool => {
  const options = { ...DEFAULTS, ...given };
  const waiting: Task[] = [];
  const idle: Worker[] = [];
  let threads = 0;

  const start = (): Worker => {
    threads += 1;
    const worker = new Worker(options.worker, {
      execArgv: [],
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: 512 },
    });
    // Whoever waits for a message is told; without anybody waiting, the thread is simply replaced.
    worker.on('error', () => {});
    worker.once('exit', () => {
      threads -= 1;
      if (idle.includes(worker)) idle.splice(idle.indexOf(worker), 1);
      next();
    });
    return worker;
  };

  const perform = async (worker: Worker, { job, resolve, reject }: Task) => {
    try {
      worker.ref();
      worker.postMessage(job);
      const [result] = await once(worker, 'message', { signal: AbortSignal.timeout(options.timeoutMs) });
      worker.unref();
      idle.push(worker);
      resolve(result as DiffResult);
      next();
    } catch (cause) {
      const late = cause instanceof Error && cause.name === 'AbortError';
      reject(
        late ? overloaded('the difference took too long') : new Refusal('INTERNAL', 'the difference failed', { cause }),
      );
      await worker.terminate();
    }
  };

  const next = () => {
    while (waiting.length > 0 && (idle.length > 0 || threads < options.workers)) {
      void perform(idle.pop() ?? start(), waiting.shift() as Task);
    }
  };

  return {
    run: async (job, signal) => {
      signal.throwIfAborted();
      if (waiting.length >= options.queue) throw overloaded('too many differences are waiting');
      const { promise, resolve, reject } = Promise.withResolvers<DiffResult>();
      const task = { job, resolve, reject };
      const onAbort = () => {
        if (waiting.includes(task)) waiting.splice(waiting.indexOf(task), 1);
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      waiting.push(task);
      next();
      return await promise.finally(() => signal.removeEventListener('abort', onAbort));
    },
  };
};
