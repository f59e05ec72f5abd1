import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { DescMessage, Message, MessageInitShape } from '@bufbuild/protobuf';
import { Refusal } from '../refusal.ts';
import type { Call } from './call.ts';
import { encodedLength } from './encode.ts';
import { canonicalBytes } from './identity.ts';
import { MAX_PAGE_BYTES } from './limits.ts';

/** Where a list goes on: the sort key of the last row that was answered. Numbers beyond 2^53 go as strings. */
export type Keyset = readonly (string | number | null)[];

/** One page of rows, and where the next one begins. */
export interface Page<Row> {
  readonly rows: readonly Row[];
  /** Null on the last page. */
  readonly next: Keyset | null;
}

export interface Pager {
  /** Reads a page token; null for an empty one. Throws INVALID_PAGE_TOKEN for one not given for this request. */
  read(call: Asker, request: Message, pageToken: string): Keyset | null;
  /** Writes the token of the page that begins after a keyset; empty for null. */
  write(call: Asker, request: Message, keyset: Keyset | null): string;
}

/** Who lists what: a page token is of use to nobody else. */
type Asker = Pick<Call, 'method' | 'caller' | 'actor'>;

const VERSION = 1;
const MAC_BYTES = 32;
const DEFAULT_PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 1000;
/** The field of a list's request that holds its page token. */
export const PAGE_TOKEN = 'page_token';
// May differ between the pages of one list.
const FREE_FIELDS = ['page_size', PAGE_TOKEN];

/** The number of rows of a page, for what the request says: 0 is 50, and above 1000 is 1000. */
export const pageSize = (requested: number): number =>
  requested === 0 ? DEFAULT_PAGE_SIZE : Math.min(requested, MAX_PAGE_SIZE);

/** Page tokens that only this service can write. @param secret shared by all replicas */
export const createPager = (secret: Buffer): Pager => {
  const mac = (payload: Buffer) => createHmac('sha256', secret).update('page\0').update(payload).digest();

  const authentic = (token: string): Buffer | null => {
    const bytes = Buffer.from(token, 'base64url');
    // Base64 ignores what it does not know, so that many texts would stand for one token.
    if (bytes.length <= MAC_BYTES || bytes.toString('base64url') !== token) return null;
    const payload = bytes.subarray(MAC_BYTES);
    return timingSafeEqual(bytes.subarray(0, MAC_BYTES), mac(payload)) ? payload : null;
  };

  return {
    read: (call, request, pageToken) => {
      if (pageToken === '') return null;
      const payload = authentic(pageToken);
      if (!payload) throw invalid('the page token is not one this service has given');
      const [version, request_, keyset] = JSON.parse(payload.toString()) as [number, string, Keyset];
      if (version !== VERSION || request_ !== requestHash(call, request)) {
        throw invalid('the page token was given for another request');
      }
      return keyset;
    },

    write: (call, request, keyset) => {
      if (keyset === null) return '';
      const payload = Buffer.from(JSON.stringify([VERSION, requestHash(call, request), keyset]));
      return Buffer.concat([mac(payload), payload]).toString('base64url');
    },
  };
};

const invalid = (message: string): Refusal =>
  new Refusal('INVALID_PAGE_TOKEN', message, { fields: [{ field: PAGE_TOKEN, description: message }] });

const requestHash = ({ method, caller, actor }: Asker, request: Message): string =>
  createHash('sha256')
    .update(`${method.parent.typeName}/${method.name}\0${caller}\0${actor ?? ''}\0`)
    .update(canonicalBytes(method.input, request, FREE_FIELDS))
    .digest('base64url');

/**
 * Cuts what a list's statement found into a page of at most 3 MiB of encoded messages, and at least one row.
 * @param found the rows in order, one more than `limit` when there are that many
 * @param limit the page's size, from `pageSize`
 * @param size the encoded size of a row in bytes: see `encodedSize`
 * @param keyset the sort key of a row
 */
export const cutPage = <Row>(
  found: readonly Row[],
  limit: number,
  size: (row: Row) => number,
  keyset: (row: Row) => Keyset,
): Page<Row> => {
  let count = 0;
  let bytes = 0;
  for (const row of found.slice(0, limit)) {
    bytes += size(row);
    if (count > 0 && bytes > MAX_PAGE_BYTES) break;
    count += 1;
  }
  const last = found[count - 1];
  const next = last !== undefined && count < found.length ? keyset(last) : null;
  return { rows: found.slice(0, count), next };
};

// The tag and the length that a message has before it inside a list.
const ITEM_OVERHEAD = 6;

/** The size in bytes that a message takes inside a list. */
export const encodedSize = <D extends DescMessage>(desc: D, message: MessageInitShape<D>): number =>
  encodedLength(desc, message) + ITEM_OVERHEAD;
