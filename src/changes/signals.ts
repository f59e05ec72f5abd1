import { startListener } from '../db/listen.ts';
import type { Logger } from '../log.ts';
import { fromPayload, toPayloads } from './payload.ts';

/** Who waits for changes. Neither may throw. */
export interface Follower {
  /** This project has changed. */
  wake(project: string): void;
  /** Whether changes of other processes are told of from now on; those in between were not. */
  setLive(live: boolean): void;
}

/** What the processes of the service tell each other: which projects have changed. The truth stays in the database. */
export interface Signals {
  /** Tells followers at once, and other processes soon, that this one has changed a project. */
  changed(project: string): void;
  follow(follower: Follower): void;
  stop(): Promise<void>;
}

interface SignalOptions {
  /** As jeex_app, direct; null: this process tells nobody, and hears of nobody. */
  readonly url: string | null;
  readonly log: Logger;
}

const CHANNEL = 'jeex_changes';
/** How often other processes are told, at most, in milliseconds: notifying takes a lock that all of them share. */
const INTERVAL_MS = 20;
/** Projects to be told of; others are found by polling. */
const MAX_PENDING = 10_000;

/** Starts to listen, in the background. */
export const startSignals = ({ url, log }: SignalOptions): Signals => {
  const followers = new Set<Follower>();
  const wake = (project: string): void => {
    for (const follower of followers) follower.wake(project);
  };
  if (url === null) {
    log.info('LISTEN_DATABASE_URL is unset: changes that other processes make are found by polling, within a second');
    return { changed: wake, follow: (follower) => void followers.add(follower), stop: async () => {} };
  }

  const pending = new Set<string>();
  let timer: NodeJS.Timeout | undefined;
  let sending: Promise<void> | null = null;
  let nextAt = 0;

  const schedule = (): void => {
    if (sending !== null || timer !== undefined || pending.size === 0 || !listener.live) return;
    timer = setTimeout(begin, Math.max(0, nextAt - performance.now()));
  };

  const begin = (): void => {
    timer = undefined;
    nextAt = performance.now() + INTERVAL_MS;
    sending = send().finally(() => {
      sending = null;
      schedule();
    });
  };

  const send = async (): Promise<void> => {
    const projects = [...pending];
    pending.clear();
    // What failed is told when the listener, which says why, is live again.
    await listener.notify(toPayloads(projects)).catch(() => projects.forEach(add));
  };

  const add = (project: string): void => {
    if (pending.size < MAX_PENDING) pending.add(project);
  };

  const listener = startListener({
    url,
    channel: CHANNEL,
    onPayload: (payload) => fromPayload(payload).forEach(wake),
    onLive: (live) => {
      for (const follower of followers) follower.setLive(live);
      schedule();
    },
    log,
  });

  return {
    changed: (project) => {
      wake(project);
      add(project);
      schedule();
    },
    follow: (follower) => {
      followers.add(follower);
      follower.setLive(listener.live);
    },
    stop: async () => {
      clearTimeout(timer);
      await sending;
      if (pending.size > 0) await send();
      await listener.stop();
    },
  };
};
