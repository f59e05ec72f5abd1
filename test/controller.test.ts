import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createController } from '../src/rpc/controller.ts';

it('a call’s signal tells everybody who listens, once, in order, and nobody who has left', () => {
  const { signal, abort } = createController();
  const told: string[] = [];
  const [first, gone, last] = ['first', 'gone', 'last'].map((name) => () => told.push(name));
  for (const listener of [first, gone, last]) signal.addEventListener('abort', listener as () => void, { once: true });
  signal.removeEventListener('abort', gone as () => void);
  signal.removeEventListener('abort', gone as () => void);
  signal.throwIfAborted();
  assert.deepEqual([signal.aborted, signal.reason], [false, undefined]);
  abort(new Error('why'));
  abort(new Error('again'));
  signal.addEventListener('abort', first as () => void);
  assert.deepEqual(told, ['first', 'last']);
  assert.deepEqual([signal.aborted, signal.reason.message], [true, 'why']);
  assert.throws(() => signal.throwIfAborted(), { message: 'why' });
});

it('a call’s signal ends what Node waits for', async () => {
  const { signal, abort } = createController();
  const waiting = sleep(60_000, undefined, { signal });
  abort(new Error('why'));
  await assert.rejects(waiting, { name: 'AbortError' });
  await assert.rejects(sleep(60_000, undefined, { signal }), { name: 'AbortError' });
});
