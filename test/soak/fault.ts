import type { Random } from '../../src/certify/random.ts';
import type { Clients } from '../support/service.ts';
import type { Cluster } from './cluster.ts';
import type { Disks } from './disks.ts';
import type { Pooler } from './pooler.ts';
import type { Replica } from './replica.ts';
import type { Until } from './waiting.ts';

/** What is there to be broken, and to be asked. */
export interface World {
  readonly cluster: Cluster;
  readonly replicas: readonly Replica[];
  /** Those of them that may be killed; the others are measured for as long as the run lasts. */
  readonly mortals: readonly Replica[];
  /** Why there is none, as text. */
  readonly pooler: Pooler | string;
  readonly disks: Disks | string;
  /** Clients whose calls go to every replica in turn. */
  readonly clients: Clients;
  /** Where its files go. */
  readonly folder: string;
  /** What a replica is started with. */
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly until: Until;
}

/** What came of a fault. */
export interface Struck {
  /** How often it struck. */
  readonly times: number;
  /** What was measured, by name: a figure for each time, or fewer. */
  readonly figures?: Readonly<Record<string, readonly number[]>>;
  /** Promises that were broken, a line each. */
  readonly broken?: readonly string[];
}

/** Something that goes wrong, and right again. */
export interface Fault {
  readonly name: string;
  /** What one time of it is. */
  readonly what: string;
  /** How often it strikes at most when its turn comes. */
  readonly batch: number;
  /** What figures may be at most, by name: judged where a fault is counted, for beside others a machine has more to do. */
  readonly limits?: Readonly<Record<string, number>>;
  /** Why it cannot be had here; null when it can. */
  missing(world: World): string | null;
  /** Breaks things, and mends what does not mend itself. Everything is in order before. @throws Error when that does not succeed */
  strike(world: World, random: Random, times: number): Promise<Struck>;
}

/** For faults that every machine has. */
export const never = (): null => null;
