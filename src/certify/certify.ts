/**
 * Certifies a running service. On scratch projects of its own, callers write and read at the same time, send again what failed with the
 * same request_id until it is acknowledged, and send some calls twice on purpose; watchers are cut and resumed beside them.
 * Every call goes into a ledger: when it began and ended, what it asked, what came. At the end the ledger is held against the
 * record of changes and against every row that is left:
 *
 *   - no acknowledged write is lost, none is applied twice, none that was refused appears;
 *   - revisions and versions have no gap, and the chain of the changes computes;
 *   - per project the history is strictly serialisable: an order of all calls exists that keeps to the clock;
 *   - no row of another project is answered; replays answer what the first success did; no two hold one lease;
 *   - exports and contents are, byte for byte, what was written; every watcher saw each change once, in order.
 *
 * Failures are no faults: somebody may kill the service meanwhile. They are counted by reason.
 *
 *     const certification = await startCertifying({ connect, seed: 7, callers: 16, projects: 4, watchers: 8 });
 *     ...                                     // break things; certification.progress() tells how far it is
 *     const verdict = await certification.stop();   // the service has to be reachable again within two minutes
 *     assert.ok(verdict.ok, pageOf(verdict));       // pageOf: report.ts
 *
 * The clock is this process's own: one process, one history. A ledger takes about 80 bytes a call and holds at most 8 million: more
 * than two thousand calls a second for an hour. The check afterwards needs some hundred bytes a call of one project at a time.
 */

import { ProjectService } from '../gen/jeex/persistence/v1/project_service_pb.js';
import { auditRows } from './audit.ts';
import { check } from './check.ts';
import { Door } from './door.ts';
import { Faults } from './faults.ts';
import type { Place, Watched } from './history.ts';
import { Ledger } from './ledger.ts';
import { Look } from './look.ts';
import { Marks } from './marks.ts';
import { type CertifyOptions, RETRY } from './options.ts';
import { patiently } from './patience.ts';
import { Random } from './random.ts';
import { readRecord } from './record.ts';
import { type Verdict, verdictOf } from './report.ts';
import { makeScratch } from './scratch.ts';
import { Tally } from './tally.ts';
import { startWatching } from './watchers.ts';
import { type Shared, Worker } from './worker.ts';
import { startWork } from './workload.ts';

/** How far a certification is. */
export interface Progress {
  readonly seconds: number;
  readonly calls: number;
  /** Writes that the service has acknowledged. */
  readonly acknowledged: number;
  /** Calls that failed, by reason, such as DATABASE_UNAVAILABLE; `code 14` for a failure without one. */
  readonly failures: Readonly<Record<string, number>>;
  /** Change events that the watchers have seen, and how often a watch was cut or ended and went on from its cursor. */
  readonly events: number;
  readonly resumed: number;
}

export interface Certification {
  /** The scratch projects' ids. */
  readonly projects: readonly string[];
  progress(): Progress;
  /** Settles when the work ends by itself: the ledger is full, or a step has failed in a way no fault explains, which rejects. */
  readonly ended: Promise<void>;
  /**
   * Ends the work, lets the watchers catch up, reads everything that is left, checks, removes the scratch projects.
   * @throws Error when the service does not answer for `giveUpMs`
   */
  stop(): Promise<Verdict>;
}

/** A stream of the seed for what the certification itself does. */
const OWN = 0x30000;

/** The revisions the projects have reached. */
const readHeads = async ({ door, shared, random }: Worker): Promise<ReadonlyMap<string, number>> => {
  const heads = new Map<string, number>();
  for (const { id } of shared.places) {
    const { getProject } = ProjectService.method;
    const { message } = await patiently(shared.retry, random, () => door.call(getProject, { id }));
    heads.set(id, Number(message.project?.revision ?? 0));
  }
  return heads;
};

/** Reads all that is left, and holds the ledger against it. @returns how many changes there are */
const examine = async (worker: Worker, watched: readonly Watched[], log: (line: string) => void): Promise<number> => {
  const { shared, door, random } = worker;
  const { ledger, marks, places, faults, retry } = shared;
  for (const place of places) {
    log(`reading what is left in project ${place.index + 1} of ${places.length}`);
    await auditRows(worker, place);
  }
  log(`checking ${ledger.calls} calls against the records of ${places.length} projects`);
  const pagesOf = (place: Place) => readRecord(door, place, retry, random);
  const projects = places.map((place) => ({ place, pages: pagesOf(place) }));
  return (await check({ ledger, marks, projects, watched }, faults)).changes;
};

/** @throws Error when the scratch projects cannot be made */
export const startCertifying = async (options: CertifyOptions): Promise<Certification> => {
  const { connect, token, seed, log = () => {} } = options;
  const retry = { ...RETRY, ...options.retry };
  const [marks, faults, tally, ledger] = [new Marks(), new Faults(), new Tally(), new Ledger()];
  const door = new Door(connect(), token);
  const scratch = await makeScratch({ door, marks, retry }, options).catch((error: unknown) => {
    door.close();
    throw error;
  });
  const { places } = scratch;
  const shared: Shared = { ledger, marks, look: new Look(marks, faults), faults, tally, retry, places };
  const own = new Worker(shared, door, new Random(seed, OWN), new Random(seed, OWN + 1));
  const began = performance.now();
  const secondsOf = () => (performance.now() - began) / 1000;
  const watching = startWatching(shared, options);
  const work = startWork(shared, options);

  const judge = async (): Promise<Omit<Parameters<typeof verdictOf>[0], 'left'>> => {
    work.stop();
    await work.ended;
    const seconds = secondsOf();
    log('letting the watchers catch up');
    const watched = await watching.catchUp(await readHeads(own));
    const calls = ledger.calls;
    return { seed, seconds, calls, changes: await examine(own, watched, log), tally, faults };
  };
  const cleanUp = async (): Promise<readonly string[]> => {
    log('removing the scratch projects');
    const left = await scratch.remove();
    door.close();
    return left;
  };
  const stop = async (): Promise<Verdict> => {
    let judged: Awaited<ReturnType<typeof judge>>;
    try {
      judged = await judge();
    } catch (error) {
      watching.cancel();
      for (const line of await cleanUp()) log(line);
      throw error;
    }
    return verdictOf({ ...judged, left: await cleanUp() });
  };
  const ended = Promise.race([work.ended, watching.ended]);
  // Whoever stops hears of it; until then nobody has to listen.
  ended.catch(() => {});
  return {
    projects: places.map(({ id }) => id),
    progress: () => ({
      seconds: secondsOf(),
      calls: ledger.calls,
      acknowledged: tally.acknowledged,
      failures: tally.failures,
      events: tally.events,
      resumed: tally.resumed,
    }),
    ended,
    stop,
  };
};
