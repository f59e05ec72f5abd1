import type { Arrived, WatchQuestion } from './watch-worker.ts';
import { startWorker } from './worker.ts';
import type { Target } from './world.ts';

/** Open watches in a process of their own. */
export interface Watchers {
  /** What has arrived since the last time. @throws Error when a watch has ended */
  arrived(): Promise<Arrived>;
  /** Ends them. */
  stop(): Promise<void>;
}

/** Opens a watch for each of the projects, one may be named several times; every one has heard something when this returns. */
export const openWatchers = async (
  { address, headers }: Pick<Target, 'address' | 'headers'>,
  projects: readonly string[],
  signal: AbortSignal,
): Promise<Watchers> => {
  const worker = await startWorker<WatchQuestion, Arrived>(new URL('./watch-worker.ts', import.meta.url), signal);
  try {
    await worker.ask({ watch: projects, address, headers });
  } catch (error) {
    await worker.stop();
    throw error;
  }
  return {
    arrived: async () => {
      const arrived = await worker.ask('arrived');
      if (arrived.open < projects.length) throw new Error(`watches have ended: ${arrived.ended[0]}`);
      return arrived;
    },
    stop: worker.stop,
  };
};
