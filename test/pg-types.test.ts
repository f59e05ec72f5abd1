import assert from 'node:assert/strict';
import { it } from 'node:test';
import { TYPES } from '../src/db/pg-types.ts';

const TIMESTAMPTZ = 1184;

const TIMES: readonly (readonly [string, bigint])[] = [
  ['2026-11-22 23:08:30.123456+00', 1_795_388_910_123_456n],
  ['2026-11-22 23:08:30.1+00', 1_795_388_910_100_000n],
  ['2026-11-22 23:08:30+00', 1_795_388_910_000_000n],
  ['2099-12-31 23:59:59.999999+00', 4_102_444_799_999_999n],
  ['2000-02-29 00:00:00.000001+00', 951_782_400_000_001n],
  ['1969-12-31 23:59:59.5+00', -500_000n],
  ['9999-12-31 23:59:59.999999+00', 253_402_300_799_999_999n],
  ['0050-01-01 00:00:00+00', -60_589_296_000_000_000n],
  ['2026-11-22 23:08:30.12+05:30', 1_795_369_110_120_000n],
  ['2026-11-22 23:08:30.12-08', 1_795_417_710_120_000n],
];

for (const [text, micros] of TIMES) {
  it(`a time is read to the microsecond: ${text}`, () => {
    const parse = TYPES.getTypeParser(TIMESTAMPTZ, 'text') as (text: string) => bigint;
    assert.equal(parse(text), micros);
  });
}
