import { Refusal } from '../refusal.ts';

/** Whom a watch belongs to. */
export interface Watcher {
  readonly caller: string;
  /** The user it watches for; null for the system. */
  readonly actor: string | null;
}

/** Projects that a process watches at a time: each costs the database a look twice a second. */
const MAX_WATCHED = 20_000;
/** Of these, how many one caller may watch for one actor. */
const MAX_WATCHED_EACH = 5_000;

/** Counts the projects that are being watched; one that several streams watch counts for each. */
export const createPlaces = () => {
  const byWatcher = new Map<string, number>();
  let taken = 0;

  const add = (key: string, count: number) => {
    const own = (byWatcher.get(key) ?? 0) + count;
    if (own === 0) byWatcher.delete(key);
    else byWatcher.set(key, own);
    taken += count;
  };

  return {
    /**
     * Takes as many places as a stream watches projects; returns how to give them back.
     * @throws Refusal OVERLOADED when there are not so many
     */
    take: ({ caller, actor }: Watcher, count: number): (() => void) => {
      const key = JSON.stringify([caller, actor]);
      if ((byWatcher.get(key) ?? 0) + count > MAX_WATCHED_EACH) {
        throw overloaded(
          `you watch ${byWatcher.get(key)} projects, and may watch ${MAX_WATCHED_EACH}: end a watch first`,
        );
      }
      if (taken + count > MAX_WATCHED) throw overloaded('too many projects are watched at the moment');
      add(key, count);
      return () => add(key, -count);
    },
  };
};

const overloaded = (message: string): Refusal => new Refusal('OVERLOADED', message);
