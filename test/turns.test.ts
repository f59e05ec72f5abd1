import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createTurns } from '../src/rpc/turns.ts';

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

it('calls of a burst begin in order, a few in each turn of the event loop, and what else waits goes between them', async () => {
  const { take } = createTurns();
  const begun: number[] = [];
  const call = async (number: number) => {
    await take();
    begun.push(number);
  };
  const burst = Promise.all(Array.from({ length: 100 }, (_, number) => call(number)));
  const seen: number[] = [];
  while (begun.length < 100) {
    await nextTurn();
    seen.push(begun.length);
  }
  await burst;
  assert.ok(seen.length >= 6, `all had begun within ${seen.length} turns`);
  assert.deepEqual(
    begun,
    Array.from({ length: 100 }, (_, number) => number),
  );
});

it('a call of its own waits for nothing, also after a burst', async () => {
  const { take } = createTurns();
  assert.equal(take(), null);
  await Promise.all(Array.from({ length: 50 }, () => take()));
  await nextTurn();
  await nextTurn();
  assert.equal(take(), null);
});
