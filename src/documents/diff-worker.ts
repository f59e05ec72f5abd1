import { parentPort } from 'node:worker_threads';
import { diffTexts } from './diff.ts';

/** What a worker is asked. */
export interface DiffJob {
  readonly from: string;
  readonly to: string;
  readonly context: number;
}

parentPort?.on('message', ({ from, to, context }: DiffJob) => {
  parentPort?.postMessage(diffTexts(from, to, context));
});
