import type { Driver, Load, Outcome } from './load.ts';
import { startWorker } from './worker.ts';

export interface NodeDriver extends Driver {
  /** Ends the process. */
  stop(): Promise<void>;
}

/** A driver on grpc-js in a process of its own, which goes on running so that its code stays warm. */
export const startNodeDriver = async (signal: AbortSignal): Promise<NodeDriver> => {
  const { ask, stop } = await startWorker<Load, Outcome>(new URL('./node-driver-worker.ts', import.meta.url), signal);
  return { name: 'grpc-js', run: ask, stop };
};
