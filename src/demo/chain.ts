import { createHash } from 'node:crypto';
import { type Change, ChangeKind } from '../gen/jeex/persistence/v1/change_service_pb.js';

/** What stands before a project's first change. */
const GENESIS = '00'.repeat(32);

const micros = ({ createTime }: Change): bigint =>
  (createTime?.seconds ?? 0n) * 1_000_000n + BigInt((createTime?.nanos ?? 0) / 1000);

/** A change's chain: SHA-256 of the previous change's chain and this change's fields, one a line, absent ones empty. */
const link = (previous: string, change: Change): string =>
  createHash('sha256')
    .update(Buffer.from(previous, 'hex'))
    .update(
      [
        change.projectId,
        change.revision,
        ChangeKind[change.kind],
        change.resourceId,
        change.documentType,
        change.version || '',
        change.actorId,
        change.caller,
        change.correlationId,
        micros(change),
      ].join('\n'),
    )
    .digest('hex');

/**
 * Computes the chain of a project's changes again, from the first one.
 * @returns the revision of the first change whose chain is not what its fields and its predecessor make, or null
 */
export const firstBrokenLink = (changes: readonly Change[]): bigint | null => {
  let previous = GENESIS;
  for (const change of changes) {
    if (link(previous, change) !== change.chain) return change.revision;
    previous = change.chain;
  }
  return null;
};
