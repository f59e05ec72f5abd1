import { createHash } from 'node:crypto';

/** A change as its chain sees it: a row of `changes`. The time is in microseconds since 1970. */
export interface Link {
  readonly project_id: string;
  readonly revision: bigint;
  readonly kind: string;
  readonly resource_id: string | null;
  readonly document_type: string | null;
  readonly version: number | null;
  readonly actor_id: string | null;
  readonly caller: string;
  readonly correlation_id: string;
  readonly create_time: bigint;
  readonly chain: Buffer;
}

/** Where a project says that its changes begin and end. */
export interface Feed {
  readonly head: bigint;
  readonly head_chain: Buffer;
  /** Changes up to this revision are forgotten by compaction. */
  readonly earliest_revision: bigint;
}

/**
 * What can be wrong with a chain. `altered`: the change before it follows from its own predecessor, and this one does not
 * follow from it: it is altered, or that one is, together with its chain. `broken`: it does not follow, and neither does the
 * change before it. `head`: the project's own chain is another than its last change's. `rewritten`: whole, and another than
 * the one that was kept.
 */
type FaultName = 'altered' | 'broken' | 'missing' | 'added' | 'head' | 'rewritten';

export interface Fault {
  readonly fault: FaultName;
  readonly revision: bigint;
  /** The change's own; null where there is none. */
  readonly kind: string | null;
  /** The other change that it can be as well; null where there is none, or where a kept chain rules it out. */
  readonly orRevision: bigint | null;
  /** The whole of it, for people. */
  readonly text: string;
}

export interface Verdict {
  readonly checked: number;
  readonly faultCount: number;
  /** The first 20. */
  readonly faults: readonly Fault[];
  /** What is neither whole nor broken, because what it follows from is no longer there; the first 20. */
  readonly unproven: readonly string[];
}

/** Faults and doubts that a verdict tells, each. */
const MAX_TOLD = 20;
/** What stands before a project's first change. */
const GENESIS = Buffer.alloc(32);

/** A change's chain: SHA-256 of the chain before it and its own fields, one a line, absent ones empty. */
const chainOf = (before: Buffer, link: Link): Buffer =>
  createHash('sha256')
    .update(before)
    .update(
      [
        link.project_id,
        link.revision,
        link.kind,
        link.resource_id,
        link.document_type,
        link.version,
        link.actor_id,
        link.caller,
        link.correlation_id,
        link.create_time,
      ].join('\n'),
    )
    .digest();

/**
 * Walks the changes of one project in order, page by page, and computes each chain again from the row's own fields, so that
 * neither the database's function nor what it stored is trusted.
 */
export class ChainWalk {
  readonly #kept: ReadonlyMap<bigint, Buffer>;
  readonly #faults: Fault[] = [];
  readonly #unproven: string[] = [];
  #faultCount = 0;
  #checked = 0;
  #feed: Feed = { head: 0n, head_chain: GENESIS, earliest_revision: 0n };
  #position = 0n;
  /** What the chain at the position can be: as it is stored and, where that is wrong, as it is computed. Empty: not known. */
  #before: readonly Buffer[] = [GENESIS];
  #sound = true;
  /** Whether the chain at the position is known from outside the database: as the beginning, or kept. */
  #anchored = true;

  /** @param kept chains that somebody kept outside the database, by revision */
  constructor(kept: ReadonlyMap<bigint, Buffer> = new Map()) {
    this.#kept = kept;
  }

  /** Takes the next page: the feed and the changes of one snapshot, in order. */
  read(feed: Feed, links: Iterable<Link>): void {
    this.#feed = feed;
    if (feed.earliest_revision > this.#position) this.#jump(feed.earliest_revision);
    for (const link of links) this.#follow(link);
  }

  /** What was found, after the last page. */
  end(): Verdict {
    this.#checkHead();
    for (const revision of this.#kept.keys()) this.#checkReach(revision);
    return {
      checked: this.#checked,
      faultCount: this.#faultCount,
      faults: this.#faults,
      unproven: this.#unproven,
    };
  }

  #follow(link: Link): void {
    const { head, earliest_revision: earliest } = this.#feed;
    this.#checked += 1;
    if (link.revision > head) {
      this.#blame('added', link, `was added: the project has reached revision ${head} only`);
    } else if (link.revision <= this.#position) {
      this.#blame('added', link, `was added: changes up to ${earliest} are forgotten`);
    } else {
      if (link.revision > this.#position + 1n) this.#miss(this.#position + 1n, link.revision - 1n);
      const kept = this.#kept.get(link.revision);
      if (kept && !kept.equals(link.chain)) this.#blameRewritten(link);
      this.#compute(link);
      this.#position = link.revision;
      this.#anchored = kept?.equals(link.chain) ?? false;
    }
  }

  #compute(link: Link): void {
    const computed = this.#before.map((before) => chainOf(before, link));
    const known = computed.length > 0;
    const follows = computed.some((chain) => chain.equals(link.chain));
    if (!known) {
      this.#doubt(`revision ${link.revision} ${link.kind}: the chain before it is not there to compute its own from`);
    } else if (!follows) {
      this.#blameLink(link);
    }
    this.#before = known && !follows ? [link.chain, computed.at(-1) as Buffer] : [link.chain];
    this.#sound = follows;
  }

  #blameLink(link: Link): void {
    const made = `the chain of revision ${link.revision} is not what its fields and the chain before it make`;
    if (this.#anchored) {
      this.#blame('altered', link, `is altered: ${made}`);
    } else if (this.#sound) {
      this.#blame('altered', link, `or revision ${this.#position} before it is altered: ${made}`, this.#position);
    } else {
      this.#blame('broken', link, 'does not follow from the change before it, which is not proven itself');
    }
  }

  #blameRewritten(link: Link): void {
    this.#blame(
      'rewritten',
      link,
      'has another chain than the one that was kept: it, or a change before it, was rewritten',
    );
  }

  #checkHead(): void {
    const { head, head_chain } = this.#feed;
    if (this.#position < head) {
      this.#miss(this.#position + 1n, head);
    } else if (this.#before.length === 0) {
      this.#doubt(`revision ${head}: no change is left to compute the project's own chain from`);
    } else if (!this.#before.some((chain) => chain.equals(head_chain))) {
      const text = `the project's own chain is not that of its last change, revision ${head}`;
      const why = this.#anchored
        ? 'the former is altered, or changes after it are removed'
        : 'one of the two is altered, or changes after it are removed';
      this.#add({ fault: 'head', revision: head, kind: null, orRevision: null, text: `${text}: ${why}` });
    }
  }

  /** Whether the kept chain of a revision could be compared at all. */
  #checkReach(revision: bigint): void {
    const { head, earliest_revision: earliest } = this.#feed;
    if (revision > head) {
      this.#missing(revision, `revision ${revision} was kept, and the project has reached ${head} only`);
    } else if (revision < earliest) {
      this.#doubt(`revision ${revision}: its chain was kept, and the change is forgotten by compaction`);
    }
  }

  #miss(from: bigint, to: bigint): void {
    const text = from === to ? `revision ${from} is missing` : `revisions ${from} to ${to} are missing`;
    this.#missing(from, text);
    this.#jump(to);
  }

  #missing(revision: bigint, text: string): void {
    this.#add({ fault: 'missing', revision, kind: null, orRevision: null, text });
  }

  /** Goes on after changes that are not there: only a kept chain tells what the next one follows from. */
  #jump(to: bigint): void {
    const kept = this.#kept.get(to);
    this.#position = to;
    this.#before = kept === undefined ? [] : [kept];
    this.#sound = kept !== undefined;
    this.#anchored = kept !== undefined;
  }

  #doubt(text: string): void {
    if (this.#unproven.length < MAX_TOLD) this.#unproven.push(text);
  }

  #blame(fault: FaultName, { revision, kind }: Link, text: string, orRevision: bigint | null = null): void {
    this.#add({ fault, revision, kind, orRevision, text: `revision ${revision} ${kind} ${text}` });
  }

  #add(fault: Fault): void {
    this.#faultCount += 1;
    if (this.#faults.length < MAX_TOLD) this.#faults.push(fault);
  }
}
