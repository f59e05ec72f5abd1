import { randomUUID } from 'node:crypto';
import { open } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Client } from 'pg';
import { type Applied, applyEntry, type Erasure, formatEntry, parseLedger, readLedger } from '../users/ledger.ts';
import { tell, writeOut } from './output.ts';
import { asOwner } from './owner.ts';
import { everyTwoSeconds } from './progress.ts';

/** Prints the ledger: a line for each erased user, which `applyErasures` reads again. */
export async function listErasures({ json }: { json: boolean }): Promise<void> {
  await asOwner(({ client, signal }) => writeOut(linesOf(readLedger(client), json), signal));
}

async function* linesOf(ledger: AsyncIterable<Erasure>, json: boolean): AsyncGenerator<string> {
  for await (const entry of ledger) {
    yield `${json ? JSON.stringify(entry) : formatEntry(entry)}\n`;
  }
}

/**
 * Erases every user of a kept ledger that is not erased here, sole owner or not, one transaction each, and keeps each entry.
 * @param file the kept ledger; absent: standard input
 * @throws Error before anything is erased, when a line is no entry; one that stops half-way is run again
 */
export async function applyErasures({ file, json }: { file: string | undefined; json: boolean }): Promise<void> {
  const lines = file === undefined ? createInterface({ input: process.stdin }) : (await open(file)).readLines();
  const entries = [...(await parseLedger(lines)).values()];
  await asOwner(async ({ client, signal }) => {
    const counts = await applyAll(client, entries, signal);
    const { ERASED: erased, ALREADY_ERASED: alreadyErased, UNKNOWN: unknown } = counts;
    const told = json
      ? JSON.stringify({ erased, alreadyErased, unknown })
      : `erased ${erased}; erased before ${alreadyErased}; unknown here ${unknown}`;
    process.stdout.write(`${told}\n`);
  });
}

async function applyAll(
  client: Client,
  entries: readonly Erasure[],
  signal: AbortSignal,
): Promise<Record<Applied, number>> {
  // Unlike a call, this may wait for the writers of a busy project.
  await client.query(`set lock_timeout = '1min'`);
  const correlationId = randomUUID();
  const counts = { ERASED: 0, ALREADY_ERASED: 0, UNKNOWN: 0 };
  const due = everyTwoSeconds();
  for (const [index, entry] of entries.entries()) {
    signal.throwIfAborted();
    counts[await applyEntry(client, entry, correlationId)] += 1;
    if (due()) tell(`${index + 1} of ${entries.length} entries applied`);
  }
  return counts;
}
