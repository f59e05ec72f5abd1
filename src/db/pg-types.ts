import pg from 'pg';

const OID = { int8: 20, timestamptz: 1184, date: 1082, numeric: 1700, interval: 1186 } as const;

/** `2026-11-22 23:08:30.123456+00` to microseconds since 1970: PostgreSQL's own resolution, which a Date cannot hold. */
const parseMicros = (text: string): bigint => {
  const fraction = /\.(\d{1,6})/.exec(text)?.[1] ?? '';
  const seconds =
    Date.parse(
      text
        .replace(/\.\d+/, '')
        .replace(' ', 'T')
        .replace(/([+-]\d\d)$/, '$1:00'),
    ) / 1000;
  return BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(6, '0'));
};

const parsers = new Map<number, (text: string) => unknown>([
  [OID.int8, BigInt],
  [OID.timestamptz, parseMicros],
  [OID.date, String],
  [OID.numeric, String],
  [OID.interval, String],
]);

/** How columns become JavaScript values: nothing loses precision on the way. */
export const TYPES = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    parsers.get(oid) ?? pg.types.getTypeParser(oid, format as 'text'),
} as unknown as pg.CustomTypesConfig;
