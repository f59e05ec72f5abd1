import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FAULTS } from './soak/faults/index.ts';
import { readOptions, WrongUse } from './soak/options.ts';
import { leaksOf, type Rest } from './soak/rest.ts';
import { schedule } from './soak/schedule.ts';
import { compare } from './soak/scratch.ts';
import { floors, percentPerHour } from './soak/slope.ts';

const MINUTE_MS = 60_000;

describe('a schedule of faults', () => {
  const steps = (seed: number, count: number) => {
    const all = schedule(seed, FAULTS);
    return Array.from({ length: count }, () => {
      const { fault, random } = all.next().value;
      return `${fault.name} ${random.below(1_000_000)}`;
    });
  };
  const rounds = 3;

  it('is the same for the same seed, with the same choices, and another one for another', () => {
    assert.deepEqual(steps(1, rounds * FAULTS.length), steps(1, rounds * FAULTS.length));
    assert.notDeepEqual(steps(1, FAULTS.length), steps(2, FAULTS.length));
  });

  it('has every fault once in a round, each round in an order of its own', () => {
    const names = steps(1, rounds * FAULTS.length).map((step) => step.split(' ')[0]);
    const orders = Array.from({ length: rounds }, (_, round) =>
      names.slice(round * FAULTS.length, (round + 1) * FAULTS.length),
    );
    for (const order of orders) assert.equal(new Set(order).size, FAULTS.length);
    assert.equal(new Set(orders.map(String)).size, rounds);
  });
});

describe('the slope of memory', () => {
  const points = (valueAt: (minute: number) => number) =>
    Array.from({ length: 60 }, (_, minute) => ({ at: minute * MINUTE_MS, value: valueAt(minute) }));

  it('is what grows in an hour, in percent of the mean', () => {
    assert.equal(Math.round(percentPerHour(points((minute) => 100 + minute)) ?? 0), 46);
    assert.equal(percentPerHour(points(() => 100)), 0);
    assert.equal(percentPerHour([{ at: 0, value: 1 }]), null);
  });

  it('is not that of a saw-tooth between collections', () => {
    const jagged = points((minute) => 100 + 50 * (minute % 10));
    assert.equal(percentPerHour(floors(jagged, 10 * MINUTE_MS)), 0);
  });
});

describe('what is acknowledged', () => {
  const told = new Map([
    [1, 'a'],
    [2, 'b'],
  ]);
  const cases = [
    ['all there', ['a', 'b'], 0],
    ['one lost', ['a'], 2],
    ['one replaced', ['a', 'c'], 1],
    ['one more, that was refused', ['a', 'b', 'c'], 1],
    ['one twice', ['a', 'b', 'b'], 2],
  ] as const;
  for (const [name, stored, faults] of cases) {
    it(`is held against what is stored: ${name}`, () => assert.equal(compare(stored, told).length, faults));
  }
});

describe('what is held at rest', () => {
  const rest = (changes: Partial<Rest['replicas'][number] & Rest> = {}): Rest => {
    const { locks = 0, openTransactions = 0, ...own } = changes;
    const replica = { name: 'first', descriptors: { 'socket:[]': 5, '/dev/null': 1 }, acquired: 0, waiting: 0, ...own };
    return { locks, openTransactions, replicas: [replica] };
  };

  it('is a leak when it is more than before, and is told by its kind', () => {
    assert.deepEqual(leaksOf(rest(), rest()), []);
    const more = rest({ descriptors: { 'socket:[]': 7, '/dev/null': 1 } });
    assert.deepEqual(leaksOf(rest(), more), ['first holds 8 descriptors, and held 6 before: 2 more socket:[]']);
  });

  it('is a leak when a slot, a lock or a transaction is not given back', () => {
    const held = rest({ acquired: 1, waiting: 2, locks: 3, openTransactions: 4 });
    assert.equal(leaksOf(rest(), held).length, 4);
  });
});

describe('the arguments of a soak', () => {
  it('have defaults, and name what is wrong', () => {
    assert.equal(readOptions([])?.minutes, 5);
    assert.equal(readOptions(['--help']), null);
    const wrong = [
      ['--minutes', '0'],
      ['--only', 'earthquake'],
      ['--rounds', '1', '--times', '1'],
      ['--speed', '9'],
    ];
    for (const args of wrong) assert.throws(() => readOptions(args), WrongUse, args.join(' '));
  });
});
