import { createHash } from 'node:crypto';
import type { Client } from 'pg';
import { waitForLock } from '../db/advisory.ts';
import { createDatabase } from '../db/pool.ts';
import { SEALED_COLUMNS, type SealedColumn, type WaitingRow } from './columns.ts';
import { type KeyRing, keyIdOf, NOT_SEALED } from './ring.ts';
import { isSealed, type Sealing, sealingWith } from './sealing.ts';
import { openSecret } from './secret.ts';

/** What a transaction takes at most, in bytes of envelopes; one that is larger goes alone. */
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
/** Whatever was being written is found by the second pass; what the third one finds, a service goes on writing. */
const MAX_PASSES = 3;
const MAX_TOLD = 5;

export interface RotateOptions {
  /** The owner's, direct: the lock that keeps two rotations apart lives in the session. */
  readonly client: Client;
  /** The same role's. */
  readonly url: string;
  readonly ring: KeyRing;
  /** Rows in a transaction. */
  readonly batch: number;
  readonly signal: AbortSignal;
  readonly log: { info(message: string): void };
  /** Told after each transaction. */
  readonly onProgress: (done: Progress) => void;
}

export interface Progress {
  readonly rows: number;
  /** How many rows waited when the rotation began. */
  readonly of: number;
  readonly bytes: number;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export interface Rotated extends Progress {
  /** The key that everything is sealed under now. */
  readonly key: number;
  /** The keys under which nothing is sealed any more. */
  readonly removed: readonly number[];
  /** Whether rows were not sealed before, in this run or one that was cut short: their bytes stay on the disk for a while. */
  readonly hadPlain: boolean;
}

/**
 * Seals every profile, input and output again that is not under the ring's first key, in small transactions while services
 * run; then takes the other keys out of the database. Killed at any point, it goes on where it was when it is run again:
 * each row says which key it is under.
 * @throws Error when the ring does not open the database, the signal aborts, or rows do not open, which are named
 */
export async function rotate(options: RotateOptions): Promise<Rotated> {
  const { client, url, ring, log } = options;
  const [key] = ring.ids;
  await waitForLock(client, 'rotate', { log });
  const { secret, sealed } = await stateOf(url, ring);
  const sealing = sealingWith(ring, secret);
  const progress = { rows: 0, of: await countWaiting(client, key), bytes: 0 };
  await resealAll(sealing, options, progress);
  await retireOthers(client, ring);
  // What was being written while they were retired; nothing can come after it.
  await resealAll(sealing, options, progress);
  const removed = await removeOthers(client, ring);
  return { ...progress, key, removed, hadPlain: !sealed };
}

const stateOf = async (url: string, ring: KeyRing): Promise<{ secret: Buffer; sealed: boolean }> => {
  const db = await createDatabase({ url, size: 1 });
  try {
    return { secret: await openSecret(db, ring), sealed: await isSealed(db) };
  } finally {
    await db.end();
  }
};

async function countWaiting(client: Client, key: number): Promise<number> {
  const counts = SEALED_COLUMNS.map(({ table, waits }) => `(select count(*) from ${table} where ${waits})`);
  const { rows } = await client.query<{ waiting: string }>(`select ${counts.join(' + ')} as waiting`, [key]);
  return Number(rows[0]?.waiting);
}

/** Passes over the tables until one finds nothing to seal: what is written meanwhile by services that start late. */
async function resealAll(sealing: Sealing, options: RotateOptions, progress: Writable<Progress>): Promise<void> {
  for (let pass = 0; pass < MAX_PASSES; pass += 1) {
    const failures: string[] = [];
    const found = await resealOnce(sealing, options, progress, failures);
    if (found > 0) continue;
    if (failures.length > 0) throw new Error(describeFailures(failures));
    return;
  }
  throw new Error(
    `services go on sealing under other keys than ${sealing.ring.ids[0]}: put it first in their ENCRYPTION_KEYS, then run this again`,
  );
}

/** Answers how many rows it found and could open. */
async function resealOnce(
  sealing: Sealing,
  options: RotateOptions,
  progress: Writable<Progress>,
  failures: string[],
): Promise<number> {
  let found = 0;
  for (const column of SEALED_COLUMNS) {
    for await (const rows of waitingRows(column, options)) {
      const resealed = rows.flatMap((row) => tryReseal(sealing, column, row, failures));
      found += resealed.length;
      progress.rows += await writeRows(options.client, column, resealed);
      progress.bytes += resealed.reduce((sum, { envelope }) => sum + envelope.length, 0);
      options.onProgress(progress);
    }
  }
  return found;
}

const describeFailures = (failures: readonly string[]): string =>
  [
    `${failures.length} of the sealed rows could not be opened; all others are under the new key, and no key was removed:`,
    ...failures.slice(0, MAX_TOLD),
    ...(failures.length > MAX_TOLD ? [`and ${failures.length - MAX_TOLD} more`] : []),
  ].join('\n  ');

async function* waitingRows(column: SealedColumn, { client, ring, batch, signal }: RotateOptions) {
  let after = column.start;
  for (;;) {
    signal.throwIfAborted();
    const { rows } = await client.query<WaitingRow>(column.waiting, [ring.ids[0], batch, MAX_BATCH_BYTES, ...after]);
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last.key;
    yield rows;
  }
}

interface ResealedRow {
  readonly key: readonly string[];
  /** SHA-256 of the envelope it replaces. */
  readonly old: Buffer;
  readonly envelope: Buffer;
  readonly extras: readonly Buffer[];
}

/** The row under the ring's first key; nothing, but a line among the failures, when it does not open. */
function tryReseal(
  sealing: Sealing,
  column: SealedColumn,
  { key, envelope }: WaitingRow,
  failures: string[],
): ResealedRow[] {
  const { ring } = sealing;
  const identity = column.identity(key);
  try {
    const plain = keyIdOf(envelope) === NOT_SEALED ? envelope.subarray(2) : ring.open(envelope, identity);
    const old = createHash('sha256').update(envelope).digest();
    return [{ key, old, envelope: ring.seal(plain, identity), extras: column.extras(sealing, key, plain) }];
  } catch (error) {
    failures.push((error as Error).message);
    return [];
  }
}

/** One transaction. A row that somebody changed in between is left to the next pass. Answers how many were written. */
async function writeRows(client: Client, { write }: SealedColumn, rows: readonly ResealedRow[]): Promise<number> {
  const [first] = rows;
  if (first === undefined) return 0;
  const columnsOf = (part: 'key' | 'extras') => first[part].map((_, index) => rows.map((row) => row[part][index]));
  const params = [rows.map(({ old }) => old), rows.map(({ envelope }) => envelope)];
  const { rowCount } = await client.query(write, [...params, ...columnsOf('key'), ...columnsOf('extras')]);
  return rowCount ?? 0;
}

/** From here on nothing new is sealed under the ring's other keys. */
async function retireOthers(client: Client, { ids: [, ...others], ids }: KeyRing): Promise<void> {
  await refuseKeysBeside(client, ids);
  await retire(client, others);
}

/** From here on nothing new is sealed under these keys; waits for what was being written under them. */
export async function retire(client: Client, keys: readonly number[]): Promise<void> {
  await client.query('update sealing_keys set retired = true where key_id = any($1)', [keys]);
  await client.query(
    `begin; set local lock_timeout = '30s'; lock table ${SEALED_COLUMNS.map(({ table }) => table).join(', ')} in share mode; commit`,
  );
}

/** Nothing is sealed under the ring's other keys: the database forgets them. Answers which they were. */
async function removeOthers(client: Client, { ids: [key, ...others] }: KeyRing): Promise<number[]> {
  for (const { table, column } of SEALED_COLUMNS) {
    await client.query(`alter table ${table} validate constraint ${table}_${column}_sealed`);
  }
  const { rows } = await client.query<{ key_id: number }>(
    'delete from sealing_keys where retired and key_id = any($1) returning key_id',
    [others],
  );
  await refuseKeysBeside(client, [key]);
  return rows.map(({ key_id }) => key_id).sort((a, b) => a - b);
}

/** Stops when services brought other keys while the rotation ran: they seal under them, and need them from now on. */
async function refuseKeysBeside(client: Client, keys: readonly number[]): Promise<void> {
  const { rows } = await client.query<{ key_id: number }>('select key_id from sealing_keys where key_id <> all($1)', [
    keys,
  ]);
  const [other] = rows;
  if (other === undefined) return;
  throw new Error(
    `a service has started with key ${other.key_id} first while this ran: give all services the same ENCRYPTION_KEYS, ` +
      'then run this again with them',
  );
}
