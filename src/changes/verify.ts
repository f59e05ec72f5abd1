import type { Database } from '../db/pool.ts';
import { ChainWalk, type Verdict } from './chain.ts';
import { walkChanges } from './sql.ts';

/** What a walk over a project's whole chain found. */
export interface Walked {
  readonly verdict: Verdict;
  /** The project's own revision and chain. */
  readonly head: bigint;
  readonly headChain: Buffer;
  /** Changes up to this revision are forgotten by compaction. */
  readonly earliest: bigint;
}

interface WalkOptions {
  /** Chains that somebody kept outside the database, by revision. */
  readonly kept: ReadonlyMap<bigint, Buffer>;
  /** Hears after each page how many changes were read, up to which revision of how many. */
  readonly onPage?: (read: number, revision: bigint, head: bigint) => void;
  readonly signal?: AbortSignal;
}

const PAGE = 1000;

/**
 * Verifies a project's changes from the first one that is kept to the last, as the system, page by page, so that the memory
 * it takes does not grow with the project. Writers go on meanwhile.
 * @throws Refusal PROJECT_NOT_FOUND, or what the database's failure means
 */
export async function verifyChain(db: Database, project: string, options: WalkOptions): Promise<Walked> {
  const { kept, onPage, signal } = options;
  const walk = new ChainWalk(kept);
  let after = 0n;
  for (let read = 0; ; ) {
    const rows = await db.run(walkChanges, { project, actor: null, after, most: PAGE }, { signal });
    const feed = rows[0];
    if (feed === undefined) throw new Error('a project that was entered has no row');
    const links = rows.filter((row) => row.revision !== null);
    walk.read(feed, links);
    if (links.length < PAGE) {
      return { verdict: walk.end(), head: feed.head, headChain: feed.head_chain, earliest: feed.earliest_revision };
    }
    after = links.at(-1)?.revision ?? after;
    read += links.length;
    onPage?.(read, after, feed.head);
  }
}
