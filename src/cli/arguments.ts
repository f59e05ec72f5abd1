import { InvalidArgumentError } from 'commander';
import { GROUPS, type Group } from '../audit/isolation/check.ts';
import { type Address, parseAddress } from '../rpc/listen.ts';

// What the texts of a command line mean. Each function throws an InvalidArgumentError that says what was expected.

export function parseVersion(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('expected a whole number from 0.');
  return Number(text);
}

export function parseWait(text: string): number {
  const seconds = /^\d{1,4}$/.test(text) ? Number(text) : -1;
  if (seconds < 0 || seconds > 3600) throw new InvalidArgumentError('expected seconds from 0 to 3600.');
  return seconds;
}

export function parseListen(text: string): Address {
  try {
    return parseAddress(text);
  } catch {
    throw new InvalidArgumentError('expected host:port, an IPv6 host in brackets.');
  }
}

export function parseTimeout(text: string): number {
  const milliseconds = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (milliseconds < 1 || milliseconds > 60_000)
    throw new InvalidArgumentError('expected milliseconds from 1 to 60000.');
  return milliseconds;
}

export function parseBatch(text: string): number {
  const rows = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (rows < 1 || rows > 10_000) throw new InvalidArgumentError('expected a whole number from 1 to 10000.');
  return rows;
}

export function parseKeyId(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new InvalidArgumentError("expected a key's number, such as 1.");
  return Number(text);
}

export function parseCalls(text: string): number {
  if (!/^\d{1,7}$/.test(text)) throw new InvalidArgumentError('expected a whole number from 0.');
  return Number(text);
}

/** A whole number from 1 to `most`. */
export const parseCount =
  (most: number) =>
  (text: string): number => {
    const count = /^\d{1,7}$/.test(text) ? Number(text) : 0;
    if (count < 1 || count > most) throw new InvalidArgumentError(`expected a whole number from 1 to ${most}.`);
    return count;
  };

export function parseGroups(text: string): readonly Group[] {
  const names = text.split(',');
  const unknown = names.find((name) => !(GROUPS as readonly string[]).includes(name));
  if (unknown !== undefined) throw new InvalidArgumentError(`expected some of ${GROUPS.join(', ')}.`);
  return GROUPS.filter((group) => names.includes(group));
}

export function parseId(text: string): string {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) throw new InvalidArgumentError('expected a UUID.');
  return text.toLowerCase();
}

/** An id, or `new`. */
export function parseTarget(text: string): string {
  return text === 'new' ? text : parseId(text);
}

export function parseKept(text: string, before: ReadonlyMap<bigint, Buffer> = new Map()): ReadonlyMap<bigint, Buffer> {
  const [, revision, chain] = /^([1-9]\d{0,17})=([0-9a-f]{64})$/i.exec(text) ?? [];
  if (revision === undefined || chain === undefined) {
    throw new InvalidArgumentError('expected a revision and its chain of 64 hexadecimal digits, such as 17=5e….');
  }
  return new Map([...before, [BigInt(revision), Buffer.from(chain, 'hex')]]);
}
