import { dropKey } from '../sealing/drop.ts';
import { loadRing } from '../sealing/ring.ts';
import { type Progress, type Rotated, rotate } from '../sealing/rotate.ts';
import { type KeyStatus, keyStatus } from '../sealing/status.ts';
import { print, tell } from './output.ts';
import { asOwner } from './owner.ts';

export interface RotateOptions {
  /** Rows in a transaction. */
  readonly batch: number;
  readonly json: boolean;
}

const PLAIN_STAYS =
  'what was not sealed before stays readable on the disk: in the files of the tables until ' +
  '`vacuum full jeex.users, jeex.execution_payloads`, as jeex_owner, has rewritten them; in the WAL until it is recycled';

const PROGRESS_MS = 1_000;

/**
 * Seals everything under the first key of the ring, while services run; again, and after a kill: goes on.
 * @throws Error saying what to do when a key is missing or wrong, or rows do not open
 */
export async function rotateKeys({ batch, json }: RotateOptions): Promise<void> {
  await asOwner(async ({ config, database, client, signal }) => {
    const ring = loadRing(config.encryptionKeys, database.secrets?.encryption ?? null);
    const { migrationUrl: url } = database;
    const rotated = await rotate({ client, url, ring, batch, signal, log: { info: tell }, onProgress: progress() });
    print(json ? JSON.stringify(rotated) : describeRotated(rotated));
    if (rotated.hadPlain) tell(PLAIN_STAYS);
  });
}

/** Takes a key out under which nothing is sealed. @throws Error when it is needed */
export async function dropUnused(key: number): Promise<void> {
  await asOwner(async ({ config, database, client }) => {
    const ring = loadRing(config.encryptionKeys, database.secrets?.encryption ?? null);
    await dropKey({ client, ring, key, log: { info: tell } });
    print(`no service needs key ${key} any more`);
  });
}

/** Shows how many rows are under which key. */
export async function showKeys({ json }: { json: boolean }): Promise<void> {
  await asOwner(async ({ client }) => {
    const status = await keyStatus(client);
    print(json ? JSON.stringify(status) : describeStatus(status));
  });
}

/** Tells how far it is, once a second and at the end. */
const progress = () => {
  const began = performance.now();
  let toldAt = 0;
  return ({ rows, of, bytes }: Progress): void => {
    const now = performance.now();
    if (now - toldAt < PROGRESS_MS && rows < of) return;
    toldAt = now;
    const perSecond = bytes / Math.max((now - began) / 1000, 0.001);
    tell(`${rows} of ${of} rows sealed again, ${sized(bytes)}, ${sized(perSecond)}/s`);
  };
};

const sized = (bytes: number): string =>
  bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

const describeRotated = ({ key, rows, bytes, removed }: Rotated): string =>
  [
    `${rows} rows (${sized(bytes)}) were sealed again; everything is under key ${key}`,
    `ENCRYPTION_KEYS needs key ${key} alone${removed.length > 0 ? `, and no longer ${removed.join(', ')}` : ''}`,
  ].join('\n');

function describeStatus({ keys, used }: KeyStatus): string {
  const nameOf = (key: number) => (key === 0 ? 'not sealed' : `key ${key}`);
  return [
    `a service needs: ${keys.map(({ key, retired }) => `key ${key}${retired ? ' (seals nothing new)' : ''}`).join(', ') || 'any key'}`,
    ...used.map(({ column, key, rows, bytes }) => `  ${column}  ${nameOf(key)}  ${rows} rows  ${sized(bytes)}`),
  ].join('\n');
}
