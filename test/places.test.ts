import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPlaces } from '../src/changes/places.ts';

const OVERLOADED = { reason: 'OVERLOADED' };

test('a caller watches 5 000 projects for an actor at most, and gets the places back', () => {
  const { take } = createPlaces();
  const eve = { caller: 'gateway', actor: 'eve' };
  const leave = Array.from({ length: 5 }, () => take(eve, 1000));
  assert.throws(() => take(eve, 1), OVERLOADED);
  take({ ...eve, actor: null }, 1000);
  take({ ...eve, caller: 'gateway2' }, 1000);
  leave[0]?.();
  take(eve, 1000);
  assert.throws(() => take(eve, 1), OVERLOADED);
});

test('a process watches 20 000 projects at most', () => {
  const { take } = createPlaces();
  const leave = Array.from({ length: 20 }, (_, i) => take({ caller: 'gateway', actor: String(i) }, 1000));
  assert.throws(() => take({ caller: 'other', actor: null }, 1), OVERLOADED);
  leave[0]?.();
  take({ caller: 'other', actor: null }, 1000);
});
