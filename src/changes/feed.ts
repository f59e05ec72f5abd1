import type { Cursor } from './changes.ts';
import type { Poller } from './poller.ts';
import type { ChangeRow } from './sql.ts';
import type { News, Watch, Watching } from './watch.ts';

/** Makes the messages of a stream: of a change, or of the revision up to which a project has no further one. */
export interface Shown<T> {
  change(row: ChangeRow): T;
  heartbeat(projectId: string, revision: bigint): T;
}

interface Followed<T> {
  readonly actor: string | null;
  readonly cursors: readonly Cursor[];
  /** The request's field that holds the cursors; null for a single one. */
  readonly cursorField: string | null;
  readonly signal: AbortSignal;
  readonly shown: Shown<T>;
  /** Called once, when it has ended. */
  readonly onEnd: () => void;
}

/** Who waits for the next message. */
interface Reader<T> {
  readonly resolve: (next: IteratorResult<T, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

/** An answer to one of the watches, and how much of it is sent. */
interface Delivery {
  readonly watch: Watch;
  readonly news: News;
  sent: number;
}

/**
 * The changes of these projects after their cursors, each project's in order, none missed, none twice; and a heartbeat for a
 * project that has none for 10 s, and at the start. Goes on until the signal aborts, or the actor may not watch one of them
 * any more. A watch is asked for again when all of its last answer was sent, so nothing piles up for a slow reader.
 */
export const follow = <T extends object>(poller: Poller, followed: Followed<T>): AsyncIterableIterator<T, undefined> =>
  new Feed(poller, followed);

/** Thousands of these wait at a time, so it is one object, and what waits in it one promise. */
class Feed<T extends object> implements AsyncIterableIterator<T, undefined>, Watching {
  readonly #poller: Poller;
  readonly #shown: Shown<T>;
  readonly #watches: readonly Watch[];
  readonly #inTheEnd: () => void;
  readonly #inbox: Delivery[] = [];
  #reader: Reader<T> | null = null;
  #failure: { readonly error: unknown } | null = null;
  #ended = false;

  constructor(poller: Poller, { actor, cursors, cursorField, signal, shown, onEnd }: Followed<T>) {
    const abort = () => this.refuse(signal.reason);
    this.#poller = poller;
    this.#shown = shown;
    this.#inTheEnd = () => {
      signal.removeEventListener('abort', abort);
      onEnd();
    };
    const siblings = cursors.length;
    this.#watches = cursors.map(({ projectId, afterRevision }, index) => ({
      stream: this,
      project: projectId,
      field: fieldOf(cursorField, index),
      actor,
      siblings,
      after: afterRevision ?? null,
      behind: false,
      heardAt: null,
      since: 0,
      stale: false,
    }));
    signal.addEventListener('abort', abort, { once: true });
    for (const watch of this.#watches) poller.ask(watch);
    if (signal.aborted) abort();
  }

  /** @throws Refusal why it ended */
  next(): Promise<IteratorResult<T, undefined>> {
    if (this.#failure !== null) return Promise.reject(this.#failure.error);
    const value = this.#take();
    if (value !== null) return Promise.resolve({ done: false, value });
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
    });
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#end();
    this.#reader?.resolve({ done: true, value: undefined });
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Each watch has at most one answer here: it is asked for again when that one was sent. */
  answer(watch: Watch, news: News): void {
    this.#inbox.push({ watch, news, sent: 0 });
    const reader = this.#reader;
    const value = reader === null ? null : this.#take();
    if (reader === null || value === null) return;
    this.#reader = null;
    reader.resolve({ done: false, value });
  }

  /** The next message; null when there is none yet. */
  #take(): T | null {
    for (let delivery = this.#inbox[0]; delivery !== undefined; delivery = this.#inbox[0]) {
      const message = this.#messageOf(delivery);
      delivery.sent += 1;
      if (message !== null) return message;
      this.#inbox.shift();
      this.#poller.ask(delivery.watch);
    }
    return null;
  }

  #messageOf({ watch, news, sent }: Delivery): T | null {
    const change = news.changes[sent];
    if (change !== undefined) return this.#shown.change(change);
    return sent === 0 ? this.#shown.heartbeat(watch.project, news.revision) : null;
  }

  refuse(error: unknown): void {
    if (this.#ended) return;
    this.#failure = { error };
    this.#end();
    this.#reader?.reject(error);
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#inbox.length = 0;
    for (const watch of this.#watches) this.#poller.forget(watch);
    this.#inTheEnd();
  }
}

const fieldOf = (cursorField: string | null, index: number): string =>
  `${cursorField === null ? '' : `${cursorField}[${index}].`}after_revision`;
