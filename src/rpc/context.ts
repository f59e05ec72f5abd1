import type { Signals } from '../changes/signals.ts';
import type { Database } from '../db/pool.ts';
import type { Sealing } from '../sealing/sealing.ts';
import type { Pager } from './page.ts';

/** What every handler works with. */
export interface Context {
  readonly db: Database;
  /** Tells of projects that have changed. */
  readonly signals: Signals;
  readonly pager: Pager;
  readonly sealing: Sealing;
}
