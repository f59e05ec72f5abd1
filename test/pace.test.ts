import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createPace } from '../src/rpc/pace.ts';

describe('messages of streams', () => {
  it('are made one at a time, each stream having its turn', async () => {
    const pace = createPace(() => 0);
    const began: string[] = [];
    let running = 0;
    const stream = async (name: string) => {
      for (let i = 0; i < 3; i++) {
        await pace({ caller: name }, async () => {
          began.push(name);
          running += 1;
          assert.equal(running, 1);
          await sleep(1);
          running -= 1;
        });
      }
    };
    await Promise.all([stream('a'), stream('b'), stream('c')]);
    assert.deepEqual(began, ['a', 'b', 'c', 'a', 'b', 'c', 'a', 'b', 'c']);
  });

  it('have their turn by caller, however many streams one of them has', async () => {
    const pace = createPace(() => 0);
    const began: string[] = [];
    const make = (caller: string) =>
      pace({ caller }, async () => {
        began.push(caller);
        await sleep(1);
      });
    await Promise.all([...Array.from({ length: 5 }, () => make('many')), make('one')]);
    assert.deepEqual(began.slice(0, 3), ['many', 'many', 'one']);
  });

  for (const [others, order] of [
    ['while nobody else calls', ['next', 'meanwhile']],
    ['while somebody calls', ['meanwhile', 'next']],
  ] as const) {
    it(`follow each other, ${others}`, async () => {
      let calls = 0;
      const pace = createPace(() => calls);
      const seen: string[] = [];
      await pace({}, async () => {
        if (order[0] === 'meanwhile') calls += 1;
        // What counts is how long the event loop was busy.
        for (const end = performance.now() + 20; performance.now() < end; );
        await sleep(1);
      });
      const meanwhile = sleep(60).then(() => seen.push('meanwhile'));
      await Promise.all([meanwhile, pace({}, async () => void seen.push('next'))]);
      assert.deepEqual(seen, order);
    });
  }

  it('fail for their own stream alone, and one that hangs does not stop the others for good', async () => {
    const pace = createPace(() => 0);
    await assert.rejects(
      pace({}, async () => {
        throw new Error('unreadable');
      }),
      /unreadable/,
    );
    void pace({}, () => new Promise(() => {}));
    assert.equal(await pace({}, async () => 'made'), 'made');
  });
});
