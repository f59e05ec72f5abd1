import { createHash } from 'node:crypto';

/** A version to append, as a request brings it; the wire's `AppendVersionEntry` and `AppendVersionRequest` are such. */
export interface Entry {
  readonly documentType: string;
  readonly content: string;
  readonly metadata?: object | undefined;
  readonly reason: string;
  readonly readabilityScore?: number | undefined;
  readonly grammarScore?: number | undefined;
  /** Empty = none. */
  readonly executionId: string;
  /** The head the caller has seen, 0 = none yet; absent = whatever it is. */
  readonly expectedVersion?: number | undefined;
}

/** The types of `entryParams`, for a statement that hands them to `append_entries`. */
export const ENTRY_TYPES = {
  document_types: 'text[]',
  contents: 'text[]',
  hashes: 'bytea[]',
  metadatas: 'jsonb[]',
  reasons: 'text[]',
  readabilities: 'float8[]',
  grammars: 'float8[]',
  expected: 'int4[]',
  executions: 'uuid[]',
} as const;

/** SHA-256 of a content's UTF-8 bytes: what a version is known by. */
export const contentHash = (content: string): Buffer => createHash('sha256').update(content, 'utf8').digest();

/** Entries as the parallel arrays that `append_entries` takes, in order; none give empty arrays. */
export const entryParams = (entries: readonly Entry[]) => ({
  document_types: entries.map((entry) => entry.documentType),
  contents: entries.map((entry) => entry.content),
  hashes: entries.map((entry) => contentHash(entry.content)),
  metadatas: entries.map((entry) => JSON.stringify(entry.metadata ?? {})),
  reasons: entries.map((entry) => entry.reason),
  readabilities: entries.map((entry) => entry.readabilityScore ?? null),
  grammars: entries.map((entry) => entry.grammarScore ?? null),
  expected: entries.map((entry) => entry.expectedVersion ?? null),
  executions: entries.map((entry) => entry.executionId || null),
});
