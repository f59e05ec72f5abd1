import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPlaces } from '../src/changes/places.ts';

const OVERLOADED = { reason: 'OVERLOADED' };

test('a caller watches 5 000 projects for a user at most, and gets the places back', () => {
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

test('a caller watches 10 000 projects for the system at most, be it on a stream each', () => {
  const { take } = createPlaces();
  const system = { caller: 'gateway', actor: null };
  for (let i = 0; i < 10_000; i++) take(system, 1);
  assert.throws(() => take(system, 1), OVERLOADED);
});

test('a process has 10 000 watches open at most', () => {
  const { take } = createPlaces();
  const leave = Array.from({ length: 10_000 }, (_, i) => take({ caller: 'gateway', actor: String(i) }, 1));
  assert.throws(() => take({ caller: 'other', actor: null }, 1), OVERLOADED);
  leave[0]?.();
  take({ caller: 'other', actor: null }, 1);
});

test('a process watches 20 000 projects at most', () => {
  const { take } = createPlaces();
  const leave = Array.from({ length: 20 }, (_, i) => take({ caller: 'gateway', actor: String(i) }, 1000));
  assert.throws(() => take({ caller: 'other', actor: null }, 1), OVERLOADED);
  leave[0]?.();
  take({ caller: 'other', actor: null }, 1000);
});
