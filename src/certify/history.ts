import type { Change } from '../gen/jeex/persistence/v1/change_service_pb.js';
import type { Actor, Ledger } from './ledger.ts';
import type { Marks } from './marks.ts';

/** A scratch project. */
export interface Place {
  /** Its number in the ledger. */
  readonly index: number;
  readonly id: string;
  /** The users' ids; the system has none. */
  readonly users: Readonly<Record<Exclude<Actor, 'system'>, string>>;
}

/** A scratch project with its whole record of changes, page by page, oldest first. */
interface Recorded {
  readonly place: Place;
  readonly pages: AsyncIterable<readonly Change[]> | Iterable<readonly Change[]>;
}

/** How far a watcher has come in a project. */
export interface Watched {
  readonly place: Place;
  /** The last revision it was sent, and the end of its chain. */
  readonly revision: number;
  readonly chain: number;
}

/** All that a run left behind: what is checked. */
export interface History {
  readonly ledger: Ledger;
  readonly marks: Marks;
  readonly projects: readonly Recorded[];
  /** What the watchers have seen, in the end. */
  readonly watched: readonly Watched[];
}

/** For people: a change, as briefly as it can be found by. */
export const nameOf = ({ id }: Place, revision: number | bigint): string => `project ${id} revision ${revision}`;
