import assert from 'node:assert/strict';
import { it } from 'node:test';
import { createFairQueue, type Share } from '../src/db/fair-queue.ts';

const share = (caller: string, project: string): Share => ({ caller, project });

it('tells what has its turn before one more of a share, but for one round', () => {
  const queue = createFairQueue<string>();
  for (let i = 0; i < 9; i++) for (let n = 0; n < 20; n++) queue.add(`other ${i} ${n}`, share(`caller ${i}`, 'own'));
  for (let i = 0; i < 5; i++) for (let n = 0; n < 3; n++) queue.add(`mine ${i} ${n}`, share('many', `project ${i}`));
  const mine = share('many', 'project 0');
  const ahead = queue.ahead(mine);
  queue.add('last', mine);
  let turns = 0;
  while (queue.take() !== 'last') turns += 1;
  assert.equal(ahead, 3 * 5 * 10);
  assert.ok(turns >= ahead && turns < ahead + 10, `${turns} had their turn before it, and ${ahead} were told`);
});

it('tells nothing of a share that has nothing waiting, and no more than all there is', () => {
  const queue = createFairQueue<string>();
  for (let n = 0; n < 50; n++) queue.add(`a ${n}`, share('flood', 'a'));
  assert.equal(queue.ahead(share('other', 'b')), 0);
  assert.equal(queue.ahead(share('flood', 'b')), 0);
  queue.add('b', share('other', 'b'));
  assert.equal(queue.ahead(share('flood', 'a')), 51);
  assert.equal(queue.ahead(share('other', 'b')), 2);
});
