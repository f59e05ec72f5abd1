import type { Applications } from './applications.ts';
import type { AuditedRows } from './audited.ts';
import type { Faults, Promised } from './faults.ts';
import type { Place } from './history.ts';
import type { Asked, Ledger, Seen } from './ledger.ts';
import type { Moment } from './order.ts';
import { both, spanOf } from './sights.ts';
import { PENDING, type Span, type Timeline } from './timeline.ts';
import { LEASE_SECONDS } from './world.ts';

/** One project under check. */
export interface Context {
  readonly ledger: Ledger;
  readonly place: Place;
  readonly timeline: Timeline;
  readonly applied: Applications;
  readonly faults: Faults;
}

/** Every call that had to do with a project, in the order they began, with the states it can have taken place at. */
export const momentsOf = (context: Context, rows: AuditedRows): readonly Moment[] => {
  const { ledger } = context;
  const moments: Moment[] = [];
  for (let call = 1; call <= ledger.calls; call++) {
    const moment = momentOf(context, rows, call);
    if (moment) moments.push(moment);
  }
  return moments;
};

const momentOf = (context: Context, rows: AuditedRows, call: number): Moment | null => {
  const { ledger, place, applied } = context;
  const operation = ledger.operation(call);
  if (!ledger.writes(operation)) {
    return ledger.project(operation) === place.index ? readMoment(context, rows, call) : null;
  }
  const here = applied.has(operation) && applied.project(operation) === place.index;
  if (here && ledger.outcome(call) === 'answered') checkAnswer(context, call);
  if (here && applied.call(operation) === call) return writeMoment(context, call);
  const refused = ledger.outcome(call) === 'refused' && ledger.project(operation) === place.index;
  return refused ? readMoment(context, rows, call) : null;
};

const writeMoment = ({ ledger, applied }: Context, call: number): Moment => {
  const operation = ledger.operation(call);
  let end = Number.POSITIVE_INFINITY;
  for (const other of ledger.callsOf(operation)) {
    if (ledger.outcome(other) === 'answered') end = Math.min(end, ledger.endOf(other));
  }
  const [from, to] = [applied.first(operation), applied.last(operation)];
  return { begin: ledger.beginOf(call), end, write: true, from, to, call };
};

/** What an answered read, or a refusal that says why, allows; null when it says nothing of the project's state. */
const readMoment = (context: Context, rows: AuditedRows, call: number): Moment | null => {
  const { ledger, timeline, faults } = context;
  const asked = ledger.asked(ledger.operation(call));
  for (const row of ledger.seenBy(call)) rows.take(asked.kind, row);
  let span: Span | null = null;
  for (const row of ledger.seenBy(call)) {
    if (mayHaveRunOut(ledger, call, row)) continue;
    const seen = wrongManifest(context, call, row) ?? spanOf(timeline, asked, row);
    if (typeof seen === 'string') {
      faults.add(promiseOf(asked), `${tell(context, call)}: ${seen}`);
      return null;
    }
    span = span ? both(span, seen) : seen;
  }
  if (span === null) return null;
  if (span.from > span.to) {
    faults.add('read', `${tell(context, call)}: no revision shows all it answered`);
    return null;
  }
  return { begin: ledger.beginOf(call), end: ledger.endOf(call), write: false, ...span, call };
};

/** An export whose lease ran out is PENDING at once, by the clock, and its record says so some seconds later. */
const mayHaveRunOut = (ledger: Ledger, call: number, { sight, version }: Seen): boolean =>
  sight === 'export' && version === PENDING && ledger.beginOf(call) - ledger.beginOf(1) > LEASE_SECONDS * 1000;

const promiseOf = ({ kind }: Asked): Promised => (kind.startsWith('audit') ? 'row' : 'read');

/** A manifest names every document that was there. @returns what is wrong with it; null: nothing */
const wrongManifest = ({ ledger, timeline }: Context, call: number, { sight, code, revision }: Seen): string | null => {
  if (sight !== 'export') return null;
  const rows = [...ledger.seenBy(call)].filter((row) => row.sight === 'manifest' && row.writer === code);
  const there = timeline.documents.filter((_, type) => timeline.headAt(type, revision) > 0).length;
  return rows.length === there ? null : `the manifest of export ${code} names ${rows.length} of ${there} documents`;
};

/** What a write answered is what it has made. */
const checkAnswer = (context: Context, call: number): void => {
  const { ledger, timeline, faults } = context;
  const asked = ledger.asked(ledger.operation(call));
  for (const row of ledger.seenBy(call)) {
    const seen = wrongManifest(context, call, row) ?? spanOf(timeline, asked, row);
    const wrong = typeof seen === 'string' ? seen : wrongAnswer(context, ledger.operation(call), row);
    if (wrong !== null) {
      faults.add(
        /^(claimRun|startRun|startExport)$/.test(asked.kind) ? 'lease' : 'row',
        `${tell(context, call)}: ${wrong}`,
      );
    }
  }
};

const wrongAnswer = ({ timeline, applied }: Context, operation: number, row: Seen): string | null => {
  const made = revisionsOf(timeline, row);
  if (made === null) return null;
  const [from, to] = [applied.first(operation), applied.last(operation)];
  const own = made.some((revision) => revision >= from && revision <= to);
  return own ? null : `${row.sight} ${row.code} of its answer is none that revisions ${from} to ${to} made`;
};

/** The revisions that made, or changed, what a write answered. */
const revisionsOf = (timeline: Timeline, { sight, code, revision }: Seen): readonly number[] | null => {
  if (sight === 'version' || sight === 'project') return [revision];
  const life = sight === 'run' ? timeline.runs.get(code) : timeline.exports.get(code);
  return life ? [...life.steps.map((step) => step.revision), ...life.downloads] : null;
};

const tell = ({ ledger, place }: Context, call: number): string => {
  const operation = ledger.operation(call);
  return `project ${place.id}: operation ${operation} ${ledger.kind(operation)}`;
};
