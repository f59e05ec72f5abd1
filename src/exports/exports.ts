import { createHash } from 'node:crypto';

/** How long an export lives when the caller does not say, in seconds. */
const DEFAULT_TTL_SECONDS = 24n * 60n * 60n;

/** An export's lifetime in microseconds, rounded up, so that the shortest one is not none; 24 hours when none is given. */
export const ttlMicros = (ttl: { readonly seconds: bigint; readonly nanos: number } | undefined): bigint =>
  ttl === undefined ? DEFAULT_TTL_SECONDS * 1_000_000n : ttl.seconds * 1_000_000n + BigInt(Math.ceil(ttl.nanos / 1000));

/** Whether a content is the one that a manifest names by its hash. */
export const isContentOf = (sha256: string, content: string): boolean =>
  createHash('sha256').update(content, 'utf8').digest('hex') === sha256;
