import type { Asked, Seen } from './ledger.ts';
import { TYPES } from './ledger.ts';
import type { Life, Span, Timeline } from './timeline.ts';

/**
 * What a row of an answer says about when it was read: from which revision to which the project was so. A string: it never
 * was, and why. What the numbers of a row are:
 *
 *   head, version, headAt   document type, version, its revision, the code of its content (0: not shown), who wrote it
 *   run                     version: its status; code; writer: who completed it (0: nobody)
 *   export                  version: its status; revision: its snapshot's; code; writer: its downloads
 *   manifest                document type and version at that revision; code of the content (0: not shown); writer: the export's code
 *   project                 revision; code: the operation that named it
 *   usage                   version, code, revision: how many versions, runs, exports
 *   feed                    revision: the last change's, or the cursor; code: the end of its chain (0: no change came);
 *                           version: 1 when nothing came after it
 */
export const spanOf = (timeline: Timeline, asked: Required<Asked>, row: Seen): Span | string => {
  if (row.sight !== 'usage' && row.revision > timeline.head) return `revision ${row.revision} is in no record`;
  return SPANS[row.sight](timeline, row, asked);
};

type SpanOf = (timeline: Timeline, row: Seen, asked: Required<Asked>) => Span | string;

/** The state that both spans allow. */
export const both = (a: Span, b: Span): Span => ({ from: Math.max(a.from, b.from), to: Math.min(a.to, b.to) });

const until = ({ head }: Timeline, from: number): Span => ({ from, to: head });

const documentOf = ({ documents }: Timeline, { type }: Seen) =>
  documents[type] ?? { revisions: [], writers: [], codes: [] };

/** What is wrong with a version that was shown; null: nothing. */
const wrongVersion = (timeline: Timeline, row: Seen): string | null => {
  const { revisions, writers, codes } = documentOf(timeline, row);
  const { version, revision, writer, code } = row;
  const name = `${TYPES[row.type]} version ${version}`;
  if (revisions[version - 1] !== revision) {
    return `${name} of revision ${revision} is recorded at revision ${revisions[version - 1] ?? 'none'}`;
  }
  if (writers[version - 1] !== writer) return `${name} is not by operation ${writer}`;
  if (code !== 0 && codes[version - 1] !== code) return `${name} has the content of ${code}, not ${codes[version - 1]}`;
  return null;
};

const version: SpanOf = (timeline, row) => wrongVersion(timeline, row) ?? until(timeline, row.revision);

const head: SpanOf = (timeline, row) => {
  // A conflict tells the head's number alone.
  const wrong = row.revision === 0 ? null : wrongVersion(timeline, row);
  const { revisions } = documentOf(timeline, row);
  if (wrong !== null) return wrong;
  if (row.version > revisions.length) return `${TYPES[row.type]} version ${row.version} is in no record`;
  return timeline.spanOf(revisions, row.version);
};

const headAt: SpanOf = (timeline, row, { target }) => {
  const expected = timeline.headAt(row.type, target);
  if (row.version !== expected) {
    return `${TYPES[row.type]} at revision ${target} is version ${expected}, not ${row.version}`;
  }
  return (row.version === 0 ? null : wrongVersion(timeline, row)) ?? until(timeline, target);
};

const hull = (spans: readonly Span[]): Span | null => {
  const [first, last] = [spans[0], spans.at(-1)];
  return first && last ? { from: first.from, to: last.to } : null;
};

const statusSpan = (timeline: Timeline, life: Life | undefined, what: string, row: Seen): Span | string => {
  if (life === undefined) return `${what} ${row.code} is in no record`;
  return hull(timeline.statusSpans(life, row.version)) ?? `${what} ${row.code} never had status ${row.version}`;
};

const run: SpanOf = (timeline, row, { kind, target }) => {
  const life = timeline.runs.get(row.code);
  if (kind === 'getRun' && row.code !== target) return `run ${row.code} was answered, ${target} was asked for`;
  if (life && row.writer !== 0 && row.writer !== life.completedBy) {
    return `run ${row.code} was completed by operation ${life.completedBy}, not ${row.writer}`;
  }
  return statusSpan(timeline, life, 'run', row);
};

const exported: SpanOf = (timeline, row, { kind, target }) => {
  const life = timeline.exports.get(row.code);
  if (kind === 'getExport' && row.code !== target) return `export ${row.code} was answered, ${target} was asked for`;
  const span = statusSpan(timeline, life, 'export', row);
  if (typeof span === 'string' || life === undefined) return span;
  if (life.created !== row.revision + 1)
    return `export ${row.code} is of revision ${life.created - 1}, not ${row.revision}`;
  if (row.writer > life.downloads.length)
    return `export ${row.code} has ${life.downloads.length} downloads, not ${row.writer}`;
  return both(span, timeline.spanOf(life.downloads, row.writer));
};

const manifest: SpanOf = (timeline, row) => {
  const expected = timeline.headAt(row.type, row.revision);
  const code = documentOf(timeline, row).codes[row.version - 1];
  if (row.version !== expected) {
    return `a manifest of revision ${row.revision} has ${TYPES[row.type]} version ${row.version}, not ${expected}`;
  }
  if (row.code !== 0 && row.code !== code) return `an export has the content of ${row.code}, not ${code}`;
  return until(timeline, row.revision);
};

const project: SpanOf = (timeline, { revision, code }) => {
  const named = timeline.nameAt(revision);
  if (named !== code) return `at revision ${revision} the project was named by operation ${named}, not ${code}`;
  return { from: revision, to: revision };
};

const usage: SpanOf = (timeline, { version: versions, code: runs, revision: exports }) => {
  const { versionsAt, runsAt, exportsAt } = timeline;
  if (versions > versionsAt.length || runs > runsAt.length || exports > exportsAt.length) {
    return `${versions} versions, ${runs} runs and ${exports} exports are more than were ever made`;
  }
  const counted = both(timeline.spanOf(versionsAt, versions), timeline.spanOf(runsAt, runs));
  return both(counted, timeline.spanOf(exportsAt, exports));
};

const feed: SpanOf = (timeline, { revision, code, version: atEnd }) => {
  if (code !== 0 && code !== timeline.chains[revision]) return `revision ${revision} was listed with another chain`;
  return atEnd === 1 ? { from: revision, to: revision } : until(timeline, revision);
};

const SPANS: Readonly<Record<Seen['sight'], SpanOf>> = {
  head,
  version,
  headAt,
  run,
  export: exported,
  manifest,
  project,
  usage,
  feed,
};
