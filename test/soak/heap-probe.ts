// Loaded into a service before its own code (NODE_OPTIONS): writes now and then what its heap holds after a collection.
import { writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isMainThread } from 'node:worker_threads';

/** A collection takes some 20 ms. */
const EVERY_MS = 10_000;

const { SOAK_HEAP_FILE: file } = process.env;
if (isMainThread && file !== undefined) {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  setInterval(() => {
    collect();
    writeFileSync(file, String(process.memoryUsage().heapUsed));
  }, EVERY_MS).unref();
}
