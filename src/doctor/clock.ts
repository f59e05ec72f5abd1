import type { Client } from 'pg';
import { type Check, type Finding, failed, warning } from './check.ts';

/** One look at the other clock: how far it is ahead of this machine's, give or take half the round trip, in milliseconds. */
export interface Reading {
  readonly aheadMs: number;
  readonly roundTripMs: number;
}

const ROUNDS = 5;
const WARN_MS = 1000;
const FAIL_MS = 60_000;
const MEND = 'keep both by NTP (chronyd, systemd-timesyncd)';

const read = async (client: Client): Promise<Reading> => {
  const sent = Date.now();
  const began = performance.now();
  const { rows } = await client.query<{ now: number }>(
    'select (extract(epoch from clock_timestamp()) * 1000)::float8 as now',
  );
  const roundTripMs = performance.now() - began;
  return { aheadMs: (rows[0]?.now ?? Number.NaN) - (sent + roundTripMs / 2), roundTripMs };
};

/** What the quickest of some readings tells: the difference that is there at least counts. */
export const judgeClock = (readings: readonly Reading[]): Finding => {
  const [best] = [...readings].sort((a, b) => a.roundTripMs - b.roundTripMs);
  if (best === undefined) throw new Error('a clock is judged by a reading at least');
  const least = Math.max(0, Math.abs(best.aheadMs) - best.roundTripMs / 2);
  const where = best.aheadMs < 0 ? 'behind' : 'ahead of';
  const says = `the database's clock is ${(least / 1000).toFixed(1)} s ${where} this machine's`;
  const seen = `${Math.round(Math.abs(best.aheadMs))} ms apart, measured to ${Math.ceil(best.roundTripMs / 2)} ms`;
  if (least > FAIL_MS) return { seen, faults: [failed(`${says}: tokens and leases end at the wrong time`, MEND)] };
  return { seen, faults: least > WARN_MS ? [warning(says, MEND)] : [] };
};

/** This machine's clock, by which tokens end, beside the database's, by which leases do. */
export const clock: Check = {
  group: 'database',
  name: 'clock',
  run: async (patient) => {
    const client = await patient.app();
    const readings: Reading[] = [];
    for (let round = 0; round < ROUNDS; round += 1) readings.push(await read(client));
    return judgeClock(readings);
  },
};
