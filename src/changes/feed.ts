import type { Cursor } from './changes.ts';
import type { News, Poller, Watch } from './poller.ts';
import type { ChangeRow } from './sql.ts';

/** What a watch streams: a change, or the revision up to which a project has no further one. */
export type FeedEvent =
  | { readonly change: ChangeRow }
  | { readonly heartbeat: { readonly projectId: string; readonly revision: bigint } };

/**
 * The changes of these projects after their cursors, each project's in order, none missed, none twice; and a heartbeat for a
 * project that has none for 10 s, and at the start. Goes on until the signal aborts, or the actor may not watch one of them
 * any more.
 *
 * @param cursorField the request's field that holds the cursors; null for a single one
 * @throws Refusal why it ended
 */
export async function* follow(
  poller: Poller,
  actor: string | null,
  cursors: readonly Cursor[],
  cursorField: string | null,
  signal: AbortSignal,
): AsyncGenerator<FeedEvent> {
  // Each watch has at most one answer here: it is asked for again when that one was sent.
  const inbox: { readonly watch: Watch; readonly news: News }[] = [];
  let failure: { readonly error: unknown } | null = null;
  let wake = () => {};
  const end = (error: unknown) => {
    failure ??= { error };
    wake();
  };
  const onAbort = () => end(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();

  const watches = cursors.map(({ projectId, afterRevision }, index): Watch => {
    const watch: Watch = {
      project: projectId,
      field: `${cursorField === null ? '' : `${cursorField}[${index}].`}after_revision`,
      actor,
      siblings: cursors.length,
      after: afterRevision ?? null,
      behind: false,
      heardAt: null,
      answer: (news) => {
        inbox.push({ watch, news });
        wake();
      },
      refuse: end,
    };
    return watch;
  });
  try {
    for (const watch of watches) poller.ask(watch);
    for (;;) {
      const next = inbox.shift();
      if (failure !== null) throw (failure as { error: unknown }).error;
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      const { watch, news } = next;
      for (const change of news.changes) yield { change };
      if (news.changes.length === 0) yield { heartbeat: { projectId: watch.project, revision: news.revision } };
      poller.ask(watch);
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    for (const watch of watches) poller.forget(watch);
  }
}
