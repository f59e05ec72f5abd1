import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Share } from '../src/db/fair-queue.ts';
import { createSlots, type Lane, type Slots, WaitedTooLong } from '../src/db/slots.ts';

interface Job extends Share {
  readonly lane?: Lane;
  readonly signal?: AbortSignal;
}

/** Work in slots that goes on until it is let go, and the order in which it began. */
const start = (slots: Slots) => {
  const begun: string[] = [];
  const gates = new Map<string, () => void>();
  const run = (name: string, { lane = 'read', signal, ...share }: Job = {}): Promise<string> => {
    const gate = Promise.withResolvers<void>();
    gates.set(name, gate.resolve);
    const work = async () => {
      begun.push(name);
      await gate.promise;
      return name;
    };
    const ended = slots.run({ lane, share, signal, work });
    // Who refuses is asked for it later.
    ended.catch(() => {});
    return ended;
  };
  /** Ends some, one after the other, each when the next has begun. */
  const end = async (...names: readonly string[]) => {
    for (const name of names) {
      gates.get(name)?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { begun, run, end };
};

describe('slots', () => {
  it('run no more than the limit at once, in order, and let whoever waits leave', async () => {
    const slots = createSlots(2);
    const { begun, run, end } = start(slots);
    const leaver = new AbortController();
    for (const name of ['a', 'b', 'c']) run(name);
    const left = run('d', leaver);
    const last = run('e');
    assert.deepEqual([begun, slots.waiting], [['a', 'b'], 3]);
    leaver.abort(new Error('gone'));
    await assert.rejects(left, { message: 'gone' });
    await end('b', 'a', 'c', 'e');
    assert.equal(await last, 'e');
    assert.deepEqual(begun, ['a', 'b', 'c', 'e']);
  });

  it('are used no further than may be at the moment', async () => {
    let usable = 1;
    const slots = createSlots(4, undefined, () => usable);
    const { begun, run, end } = start(slots);
    for (const name of ['a', 'b', 'c', 'd']) run(name);
    assert.deepEqual(begun, ['a']);
    usable = 3;
    slots.widen();
    await end();
    assert.deepEqual(begun, ['a', 'b', 'c']);
    usable = 1;
    await end('a', 'b');
    assert.deepEqual(begun, ['a', 'b', 'c']);
    await end('c', 'd');
    assert.deepEqual(begun, ['a', 'b', 'c', 'd']);
  });

  it('refuse for the work that is really ahead, not for as much of every share', async () => {
    const slots = createSlots(4, 60_000);
    const { run, begun } = start(slots);
    for (let i = 0; i < 10; i++) run(`other ${i}`, { project: `other ${i}` });
    for (let i = 0; i < 500; i++) run(`flood ${i}`, { project: 'flood' });
    assert.equal(slots.waiting, 510 - begun.length);
  });

  it('refuse who has waited too long, and give its place up', async () => {
    const slots = createSlots(1, 10);
    const { run, end } = start(slots);
    const holding = run('holding');
    await assert.rejects(run('late'), WaitedTooLong);
    assert.equal(slots.waiting, 0);
    await end('holding');
    assert.equal(await holding, 'holding');
    const next = run('next');
    await end('next');
    assert.equal(await next, 'next');
  });

  it('take callers in turn, and the projects of each, however much one of them asks for', async () => {
    const slots = createSlots(1);
    const { begun, run, end } = start(slots);
    run('first');
    for (const name of ['f1', 'f2', 'f3', 'f4']) run(name, { caller: 'a', project: 'flood' });
    run('q1', { caller: 'a', project: 'quiet' });
    run('o1', { caller: 'b', project: 'other' });
    await end('first', 'f1', 'o1', 'q1', 'f2', 'f3', 'f4');
    assert.deepEqual(begun, ['first', 'f1', 'o1', 'q1', 'f2', 'f3', 'f4']);
  });

  it('leave places to writes while reads would take all, and to reads while writes would', async () => {
    for (const [many, other] of [
      ['read', 'write'],
      ['write', 'read'],
    ] as const) {
      const slots = createSlots(8);
      const { begun, run, end } = start(slots);
      const names = Array.from({ length: 12 }, (_, i) => `${many} ${i}`);
      for (const name of names) run(name, { lane: many });
      assert.equal(begun.length, 6);
      run(other, { lane: other });
      assert.equal(begun.at(-1), other);
      await end(other, ...names);
      assert.equal(slots.waiting, 0);
    }
  });

  it('refuse at once who would wait longer than anybody may, and let another share in', async () => {
    const slots = createSlots(1, 20);
    const { run, end } = start(slots);
    run('slow');
    const waited = run('waits', { project: 'flood' });
    await assert.rejects(waited, { message: /no slot of 1 was free within 20 ms/ });
    await end('slow');
    for (let i = 0; i < 40; i++) {
      const took = run('slow');
      await new Promise((resolve) => setTimeout(resolve, 2));
      await end('slow');
      await took;
    }
    run('slow');
    const flood = Array.from({ length: 200 }, (_, i) => run(`flood ${i}`, { project: 'flood' }));
    await assert.rejects(flood.at(-1) as Promise<string>, { message: /ms of work wait already/ });
    const quiet = run('quiet', { project: 'quiet' });
    await end('slow', 'flood 0', 'quiet');
    assert.equal(await quiet, 'quiet');
  });

  it('keep no more waiting than a thousand for one share', async () => {
    const slots = createSlots(1);
    const { run, end } = start(slots);
    run('holding');
    const flood = Array.from({ length: 1001 }, (_, i) => run(`flood ${i}`, { project: 'flood' }));
    await assert.rejects(flood.at(-1) as Promise<string>, { message: '1000 wait already' });
    const quiet = run('quiet', { project: 'quiet' });
    assert.equal(slots.waiting, 1001);
    await end('holding', 'flood 0', 'quiet');
    assert.equal(await quiet, 'quiet');
  });
});
