import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createQueue, type Queue } from '../src/changes/queue.ts';
import type { Watch } from '../src/changes/watch.ts';

const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

const watchOf = (project: string, more: Partial<Watch> = {}): Watch => ({
  stream: { answer: () => {}, refuse: () => {} },
  project,
  field: 'after_revision',
  actor: null,
  siblings: 1,
  after: 7n,
  behind: false,
  heardAt: 0,
  since: 0,
  stale: false,
  ...more,
});

/** Times of before this process: whoever is taken waits since after them. */
const at = (place: number): number => place - 10_000;
const NOW = 0;
const NOBODY = Number.NEGATIVE_INFINITY;
const projectsIn = (queue: Queue, since: number): string[] => queue.take(since).asks.map(({ project }) => project);

/** A queue in which these wait, each later than the one before it. */
const queueOf = (...watches: readonly Watch[]): Queue => {
  const queue = createQueue();
  for (const [place, watch] of watches.entries()) {
    queue.add(watch);
    watch.since = at(place);
  }
  return queue;
};

describe('the queue of watches', () => {
  it('asks once for those of one project and actor that know the same', () => {
    const same = times(100, () => watchOf('a'));
    const others = [watchOf('a', { actor: 'eve' }), watchOf('a', { after: 6n }), watchOf('b')];
    const { asks, due } = queueOf(...same, ...others).take(NOW);
    assert.deepEqual(
      asks.map(({ watches }) => watches.length),
      [100, 1, 1, 1],
    );
    assert.equal(due, 103);
  });

  it('takes whose turn it is, the longest wait first, and puts them last', () => {
    const queue = queueOf(watchOf('a'), watchOf('b'), watchOf('c'));
    assert.deepEqual(projectsIn(queue, at(1)), ['a', 'b']);
    assert.deepEqual(
      [...queue.waiting].map(({ project }) => project),
      ['c', 'a', 'b'],
    );
    assert.deepEqual(projectsIn(queue, at(1)), []);
  });

  it('takes those in a hurry first, and only them where nobody else has a turn', () => {
    const queue = queueOf(
      watchOf('a'),
      watchOf('new', { heardAt: null }),
      watchOf('far', { behind: true }),
      watchOf('b'),
    );
    assert.ok(queue.hurried);
    assert.deepEqual(projectsIn(queue, NOBODY), ['new', 'far']);
    assert.ok(!queue.hurried);
    queue.wake('b');
    assert.deepEqual(projectsIn(queue, at(0)), ['b', 'a']);
  });

  it('keeps a change in mind for who is being asked for, or still sends', () => {
    const [asked, sending] = [watchOf('a'), watchOf('a', { actor: 'eve' })];
    const queue = queueOf(asked, sending);
    assert.equal(queue.take(NOW).asks.length, 2);
    queue.settle(sending);
    queue.wake('a');
    assert.deepEqual(
      queue.take(NOBODY).asks.map(({ actor }) => actor),
      [null],
    );
    queue.add(sending);
    assert.deepEqual(
      queue.take(NOBODY).asks.map(({ actor }) => actor),
      ['eve'],
    );
    assert.ok(!queue.hurried);
  });

  it('takes no more at a time than 250 watches and 5 000 rows, and the rest the next time', () => {
    const many = queueOf(...times(600, (i) => watchOf(`p${i}`)));
    assert.deepEqual(
      times(3, () => many.take(NOW).asks.length),
      [250, 250, 100],
    );
    const far = queueOf(...times(120, (i) => watchOf(`p${i}`, { behind: true })));
    assert.deepEqual(
      times(3, () => far.take(NOBODY).asks.length),
      [50, 50, 20],
    );
  });

  it('forgets who has left, and tells whether anybody watches', () => {
    const watch = watchOf('a');
    const queue = queueOf(watch);
    assert.equal(queue.wake('a'), true);
    queue.forget(watch);
    assert.equal(queue.wake('a'), false);
    assert.deepEqual(projectsIn(queue, NOW), []);
    assert.ok(!queue.hurried);
  });
});
