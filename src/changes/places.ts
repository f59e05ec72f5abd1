import { Refusal } from '../refusal.ts';

/** Whom a watch belongs to. */
export interface Watcher {
  readonly caller: string;
  /** The user it watches for; null for the system. */
  readonly actor: string | null;
}

/** Watches that a process has open at a time: each takes some 15 KB of its memory. */
const MAX_STREAMS = 10_000;
/** Projects that they watch: each costs the database a look every few seconds. */
const MAX_WATCHED = 20_000;
/** Of these, how many one caller may watch for one user, */
const MAX_FOR_USER = 5_000;
/** and how many for the system, which can stand for all of its users. */
const MAX_FOR_SYSTEM = 10_000;

/** Counts the watches, and the projects that are being watched; one that several streams watch counts for each. */
export const createPlaces = () => {
  const byWatcher = new Map<string, number>();
  let taken = 0;
  let streams = 0;

  const add = (key: string, count: number) => {
    const own = (byWatcher.get(key) ?? 0) + count;
    if (own === 0) byWatcher.delete(key);
    else byWatcher.set(key, own);
    taken += count;
    streams += Math.sign(count);
  };

  return {
    /**
     * Takes as many places as a stream watches projects; returns how to give them back.
     * @throws Refusal OVERLOADED when there are not so many
     */
    take: ({ caller, actor }: Watcher, count: number): (() => void) => {
      const key = JSON.stringify([caller, actor]);
      const own = byWatcher.get(key) ?? 0;
      const most = actor === null ? MAX_FOR_SYSTEM : MAX_FOR_USER;
      if (own + count > most) throw overloaded(`you watch ${own} projects, and may watch ${most}: end a watch first`);
      if (streams === MAX_STREAMS) throw overloaded('too many watches are open at the moment');
      if (taken + count > MAX_WATCHED) throw overloaded('too many projects are watched at the moment');
      add(key, count);
      return () => add(key, -count);
    },
  };
};

const overloaded = (message: string): Refusal => new Refusal('OVERLOADED', message);
