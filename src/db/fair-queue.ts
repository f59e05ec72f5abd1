/** On whose account something waits: which service calls, and in which project; empty where there is none. */
export interface Share {
  readonly caller?: string;
  readonly project?: string;
}

/** What waits for its turn, so that who has much to do does not keep the others from theirs. */
export interface FairQueue<T> {
  readonly size: number;
  /** How many shares have something waiting. */
  readonly shares: number;
  /** How many have their turn before one more of a share, but for the round that this one is in. */
  ahead(share: Share): number;
  add(item: T, share: Share): void;
  /** Takes one out of turn; false when it does not wait any more. */
  remove(item: T, share: Share): boolean;
  /** The one whose turn it is. */
  take(): T | undefined;
}

/** Moves a key behind all others. */
const rotate = <V>(map: Map<string, V>, key: string, value: V): void => {
  if (map.size === 1) return;
  map.delete(key);
  map.set(key, value);
};

const firstOf = <K, V>(map: ReadonlyMap<K, V>): readonly [K, V] | undefined => map.entries().next().value;

/** Takes in turn by caller, of each caller in turn by project, and of each project in the order of arrival. */
export const createFairQueue = <T>(): FairQueue<T> => {
  const callers = new Map<string, Map<string, Set<T>>>();
  let size = 0;
  let shares = 0;

  const itemsOf = ({ caller = '', project = '' }: Share) => callers.get(caller)?.get(project);

  const drop = (caller: string, project: string): void => {
    const projects = callers.get(caller);
    projects?.delete(project);
    if (projects?.size === 0) callers.delete(caller);
    shares -= 1;
  };

  return {
    get size() {
      return size;
    },
    get shares() {
      return shares;
    },
    ahead: (share) => {
      const projects = callers.get(share.caller ?? '')?.size ?? 0;
      return Math.min(size, (itemsOf(share)?.size ?? 0) * projects * callers.size);
    },
    add: (item, { caller = '', project = '' }) => {
      const projects = callers.get(caller) ?? new Map<string, Set<T>>();
      if (projects.size === 0) callers.set(caller, projects);
      const items = projects.get(project) ?? new Set<T>();
      if (items.size === 0) {
        projects.set(project, items);
        shares += 1;
      }
      items.add(item);
      size += 1;
    },
    remove: (item, share) => {
      const items = itemsOf(share);
      if (!items?.delete(item)) return false;
      size -= 1;
      if (items.size === 0) drop(share.caller ?? '', share.project ?? '');
      return true;
    },
    take: () => {
      const [caller, projects] = firstOf(callers) ?? [];
      if (caller === undefined || projects === undefined) return undefined;
      const [project, items] = firstOf(projects) as readonly [string, Set<T>];
      const [item] = items as Set<T> & Iterable<T>;
      items.delete(item as T);
      size -= 1;
      rotate(projects, project, items);
      rotate(callers, caller, projects);
      if (items.size === 0) drop(caller, project);
      return item;
    },
  };
};
