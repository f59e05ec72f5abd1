import { Applications } from './applications.ts';
import { expectedOf } from './asked.ts';
import { Attribution } from './attribution.ts';
import { AuditedRows } from './audited.ts';
import type { Faults } from './faults.ts';
import type { History, Place, Watched } from './history.ts';
import type { Asked, Ledger } from './ledger.ts';
import { momentsOf } from './moments.ts';
import { type Clash, clashesOf, type Moment } from './order.ts';
import type { Timeline } from './timeline.ts';

/** What a check looked at. */
export interface Checked {
  /** Changes in the records of all projects. */
  readonly changes: number;
}

/**
 * Holds a history against its promises. One project is looked at after the other, so that what is made of its record is gone
 * before the next one's.
 */
export const check = async (history: History, faults: Faults): Promise<Checked> => {
  const applied = new Applications();
  let changes = 0;
  for (const { place, pages } of history.projects) {
    const attribution = new Attribution(history, place, applied, faults);
    for await (const page of pages) attribution.read(page);
    const timeline = attribution.end();
    changes += timeline.head;
    const context = { ledger: history.ledger, place, timeline, applied, faults };
    const rows = new AuditedRows(context);
    for (const clash of clashesOf(momentsOf(context, rows))) tellClash(history.ledger, place, clash, faults);
    rows.end();
    for (const seen of history.watched) if (seen.place === place) checkWatched(seen, timeline, faults);
  }
  checkOperations(history.ledger, applied, faults);
  return { changes };
};

/** Each change computes from the one before it, so the last chain vouches for all that a watcher was sent. */
const checkWatched = ({ place, revision, chain }: Watched, { chains }: Timeline, faults: Faults): void => {
  if (revision === 0 || chains[revision] === chain) return;
  faults.add('eventOther', `a watcher of project ${place.id} was sent another revision ${revision} than is recorded`);
};

const tellClash = (ledger: Ledger, { id }: Place, { before, after, revision }: Clash, faults: Faults): void => {
  const tell = ({ call, from, to, write }: Moment): string => {
    const operation = ledger.operation(call);
    const states = from === to ? `revision ${from}` : `revisions ${from} to ${to}`;
    return `operation ${operation} ${ledger.kind(operation)} ${write ? 'made' : 'saw'} ${states}`;
  };
  const how = `project ${id}: ${tell(after)}, and revision ${revision} was there before it began: ${tell(before)}`;
  // A write is never too late by itself: what a read had shown before it began was not there yet.
  faults.add(after.write && before.write ? 'order' : 'stale', how);
};

/** What can be said of an operation alone: that it is not lost, and that all its answers are the same. */
const checkOperations = (ledger: Ledger, applied: Applications, faults: Faults): void => {
  for (let operation = 1; operation <= ledger.operations; operation++) {
    if (!ledger.writes(operation)) continue;
    const answers = [...ledger.callsOf(operation)].filter((call) => ledger.outcome(call) === 'answered');
    if (answers.length === 0) continue;
    const asked = ledger.asked(operation);
    if (changes(ledger, asked, answers) && !applied.has(operation)) {
      faults.add('lost', `operation ${operation} ${asked.kind} was acknowledged and is in no record`);
    }
    const digests = new Set(answers.map((call) => ledger.digest(call)));
    if (digests.size > 1) {
      faults.add('replay', `operation ${operation} ${asked.kind} was answered ${digests.size} ways`);
    }
  }
};

/** Whether an answered operation has made changes: a claim may have found nothing. */
const changes = (ledger: Ledger, asked: Required<Asked>, answers: readonly number[]): boolean =>
  expectedOf(asked).length > 0 &&
  (asked.kind !== 'claimRun' || answers.some((call) => !ledger.seenBy(call)[Symbol.iterator]().next().done));
