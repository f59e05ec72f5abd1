import { randomBytes } from 'node:crypto';
import { CallError } from '../../support/client.ts';
import type { Disks } from '../disks.ts';
import type { Fault, Struck, World } from '../fault.ts';
import { type Append, append, compare, contentsOf, newAppend, newScratch, type Scratch } from '../scratch.ts';
import { insist, isPassing } from '../waiting.ts';

/** Of an append while a disk fills, in bytes: random, so that it does not compress. */
const CONTENT_BYTES = 48 * 1024;
/** Appends that are refused before there is space again. */
const REFUSED = 5;

/** Brings a full file system to refuse a write soon. */
type Press = (world: World) => Promise<void>;

interface Filling {
  /** By version, what was acknowledged. */
  readonly told: Map<number, string>;
  readonly refused: Append[];
  readonly broken: string[];
}

/** Appends until some are refused. */
const untilRefused = async (world: World, scratch: Scratch, filling: Filling, press: Press): Promise<void> => {
  const { told, refused, broken } = filling;
  const send = async (): Promise<boolean> => {
    await press(world);
    const request = newAppend(scratch, randomBytes(CONTENT_BYTES).toString('base64'));
    try {
      told.set(await append(world.clients, scratch, request), request.content);
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      if (!isPassing(error))
        broken.push(`a full disk's append was told ${error.reason || error.code}: ${error.message}`);
      refused.push(request);
    }
    return refused.length >= REFUSED;
  };
  await world.until(send, 'a full disk refuses appends');
};

const strike = async (world: World, name: keyof Disks, press: Press): Promise<Struck> => {
  const { clients, cluster, disks, signal } = world;
  if (typeof disks === 'string') throw new Error(disks);
  const scratch = await newScratch(world);
  const filling: Filling = { told: new Map(), refused: [], broken: [] };
  try {
    disks[name].fill();
    await untilRefused(world, scratch, filling, press);
  } finally {
    disks[name].free();
  }
  // It may have ended by itself, and is started again as whoever runs it would.
  await cluster.start();
  const { refused, told, broken } = filling;
  // What was refused is sent as it was: should it be there after all, that is its answer.
  for (const request of refused)
    told.set(await insist(signal, () => append(clients, scratch, request)), request.content);
  return { times: 1, broken: [...broken, ...compare(await contentsOf(world, scratch), told)] };
};

const missing = ({ disks }: World): string | null => (typeof disks === 'string' ? disks : null);

/** The disk with the data has no space left: a statement that needs some fails, and the others go on. */
export const diskFullData: Fault = {
  name: 'disk-full-data',
  what: 'the disk with the data full, and free again',
  batch: 1,
  missing,
  strike: (world) => strike(world, 'data', async () => {}),
};

const FORCE_SEGMENT = "select pg_logical_emit_message(false, 'soak', repeat('x', 1000000)), pg_switch_wal()";

/** Asks for a new file of the log; the server may be down by then. */
const useLog: Press = async ({ cluster }) => {
  await cluster.ask(FORCE_SEGMENT).catch(() => {});
};

/** The disk with the write-ahead log has no space left: PostgreSQL ends at once, and can start only when there is some again. */
export const diskFullWal: Fault = {
  name: 'disk-full-wal',
  what: "the write-ahead log's disk full, and free again",
  batch: 1,
  missing,
  strike: (world) => strike(world, 'wal', useLog),
};
