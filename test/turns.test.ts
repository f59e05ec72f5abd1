import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createTurns } from '../src/rpc/turns.ts';

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

it('calls of a burst begin in order, a few in each turn of the event loop, and what else waits goes between them', async () => {
  const { take } = createTurns();
  const begun: number[] = [];
  const call = async (number: number) => {
    await take({});
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
  assert.equal(take({}), null);
  await Promise.all(Array.from({ length: 50 }, () => take({})));
  await nextTurn();
  await nextTurn();
  assert.equal(take({}), null);
});

it('shares have their turn one after the other, and one that floods begins few calls in a turn', async () => {
  const { take } = createTurns();
  const begun: string[] = [];
  const call = async (caller: string, project: string) => {
    await take({ caller, project });
    begun.push(project);
  };
  const flood = Array.from({ length: 60 }, () => call('a', 'flood'));
  const others = [call('a', 'quiet'), call('b', 'other')];
  await Promise.all(others);
  assert.ok(begun.length < 40, `${begun.length} had begun before the two others`);
  const before = begun.length;
  await nextTurn();
  assert.equal(begun.length - before, 8, 'of one share alone in a turn');
  await Promise.all(flood);
});

it('a share that has too many waiting is refused, and another one is let in', async () => {
  const turns = createTurns();
  const flood = Array.from({ length: 4_016 }, () => turns.take({ project: 'flood' }));
  assert.equal(turns.waiting, 4_000);
  assert.throws(() => turns.take({ project: 'flood' }), { reason: 'OVERLOADED' });
  const other = turns.take({ project: 'other' });
  await other;
  assert.ok(turns.waiting > 3_900);
  await Promise.all(flood);
});

it('is refused for the length of its own wait: a flood does not count its neighbours as floods', async () => {
  const turns = createTurns();
  const calls = Array.from({ length: 40 }, (_, place) => turns.take({ project: `quiet ${place}` }));
  calls.push(...Array.from({ length: 800 }, () => turns.take({ project: 'flood' })));
  await Promise.all(calls);
});

it('keeps no more waiting than four times as many, of however many shares', async () => {
  const turns = createTurns();
  const calls = Array.from({ length: 16_016 }, (_, place) => turns.take({ project: `own ${place}` }));
  assert.throws(() => turns.take({ project: 'one more' }), /too many calls wait to begin/);
  await Promise.all(calls);
});
