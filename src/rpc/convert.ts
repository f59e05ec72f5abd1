import { create } from '@bufbuild/protobuf';
import { type Duration, DurationSchema, type FieldMask, type Timestamp, TimestampSchema } from '@bufbuild/protobuf/wkt';
import { invalidField, type Refusal } from '../refusal.ts';

/** Microseconds since 1970, as the database tells time, to a Timestamp. */
export const timestamp = (micros: bigint): Timestamp => {
  const seconds = micros / 1_000_000n - (micros % 1_000_000n < 0n ? 1n : 0n);
  return create(TimestampSchema, { seconds, nanos: Number(micros - seconds * 1_000_000n) * 1000 });
};

/** The same for a time that may be absent. */
export const optionalTimestamp = (micros: bigint | null): Timestamp | undefined =>
  micros === null ? undefined : timestamp(micros);

/** A Timestamp of a request as text for PostgreSQL, to the microsecond. @throws INVALID_FIELD when it is out of range */
export const timestampText = (time: Timestamp, field: string): string => {
  if (time.nanos < 0 || time.nanos > 999_999_999 || time.seconds < 0n || time.seconds > 253_402_300_799n) {
    throw invalidField(field, 'must be a time from 1970 to 9999');
  }
  const whole = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(Math.trunc(time.nanos / 1000)).padStart(6, '0')}Z`;
};

/** A length of time in microseconds to a Duration. */
export const duration = (micros: bigint): Duration =>
  create(DurationSchema, { seconds: micros / 1_000_000n, nanos: Number(micros % 1_000_000n) * 1000 });

/** A row's version as an etag: opaque to callers. */
export const etag = (rowVersion: bigint): string => `v${rowVersion}`;

/** The row version an etag stands for; null when none is given. What is no etag of ours matches no row. */
export const rowVersionOf = (given: string): bigint | null => {
  if (given === '') return null;
  const digits = /^v(\d{1,18})$/.exec(given)?.[1];
  return digits === undefined ? -1n : BigInt(digits);
};

/** The paths an update names: the mask's, else those of the fields the resource brings. @throws INVALID_FIELD for an unknown path */
export const updatePaths = <P extends string>(
  mask: FieldMask | undefined,
  known: readonly P[],
  isPopulated: (path: P) => boolean,
): ReadonlySet<P> => {
  // JSON cannot tell an empty mask from none.
  if (mask === undefined || mask.paths.length === 0) {
    return new Set(known.filter(isPopulated));
  }
  for (const path of mask.paths) {
    if (!(known as readonly string[]).includes(path)) {
      throw invalidField('update_mask', `names an unknown or unchangeable path; known are ${known.join(', ')}`);
    }
  }
  return new Set(mask.paths as P[]);
};

/** The names of a protobuf enum as the database writes them: `ROLE_OWNER` is `OWNER`. */
export const enumNames = <E extends Record<string, string | number>>(values: E) => {
  const byName = new Map<string, number>();
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === 'number') byName.set(name, value);
  }
  const byNumber = new Map([...byName].map(([name, value]) => [value, name]));
  type Value = Extract<E[keyof E], number>;
  return {
    /** The database's text for a value of the wire. */
    text: (value: Value): string => byNumber.get(value) ?? 'UNSPECIFIED',
    /** The value of the wire for the database's text. */
    value: (text: string): Value => (byName.get(text) ?? 0) as Value,
  };
};

/** The one row of an answer, or the refusal that there is none. */
export const oneOr = <R>(rows: readonly R[], refuse: () => Refusal): R => {
  const row = rows[0];
  if (row === undefined) throw refuse();
  return row;
};
