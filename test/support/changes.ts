import type { Cursor } from '../../src/changes/changes.ts';
import type { Change, WatchProjectResponse } from '../../src/gen/jeex/persistence/v1/change_service_pb.js';
import type { CallOptions } from './client.ts';
import type { Clients } from './service.ts';

/** A watch as a test reads it: event by event, ended with it. */
export interface Watching {
  /** The next event. @throws CallError when the stream ends with one */
  next(): Promise<WatchProjectResponse['event']>;
  /** Reads changes, past heartbeats, until one is of this revision. */
  until(revision: bigint): Promise<Change[]>;
  stop(): void;
}

const reader = (start: (signal: AbortSignal) => AsyncIterable<{ event: WatchProjectResponse['event'] }>): Watching => {
  const controller = new AbortController();
  const events = start(controller.signal)[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await events.next();
    if (done) throw new Error('the stream has ended');
    return value.event;
  };
  return {
    next,
    until: async (revision) => {
      const changes: Change[] = [];
      while (changes.at(-1)?.revision !== revision) {
        const event = await next();
        if (event.case === 'change') changes.push(event.value);
      }
      return changes;
    },
    stop: () => controller.abort(),
  };
};

/** Watches one project. */
export const watch = (
  { changes }: Clients,
  projectId: string,
  afterRevision?: bigint,
  options: CallOptions = {},
): Watching =>
  reader((signal) =>
    changes.watchProject({ projectId, ...(afterRevision !== undefined && { afterRevision }) }, { ...options, signal }),
  );

/** Watches many projects on one stream. */
export const watchMany = (
  { changes }: Clients,
  cursors: readonly { projectId: string; afterRevision?: bigint }[],
  options: CallOptions = {},
): Watching => reader((signal) => changes.watchProjects({ cursors: [...cursors] }, { ...options, signal }));

/** All changes of a project, page by page. */
export const allChanges = async ({ changes }: Clients, projectId: string, pageSize = 1000): Promise<Change[]> => {
  const found: Change[] = [];
  let pageToken = '';
  do {
    const page = await changes.listChanges({ projectId, pageSize, pageToken });
    found.push(...page.changes);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return found;
};

/** A watch without a door before it: its messages have the revision of a change, or that of a heartbeat. */
export const followed = (watched: { cursors: readonly Cursor[]; signal: AbortSignal; actor?: string | null }) => ({
  actor: null,
  cursorField: null,
  shown: {
    change: ({ revision }: { revision: bigint }): { change?: bigint; heartbeat?: bigint } => ({ change: revision }),
    heartbeat: (_project: string, revision: bigint) => ({ heartbeat: revision }),
  },
  onEnd: () => {},
  ...watched,
});
