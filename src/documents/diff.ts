import { diffArrays } from 'diff';

/** One line of a hunk: in both versions, in the later one only, or in the earlier one only. */
interface DiffLine {
  readonly kind: 'CONTEXT' | 'ADDED' | 'REMOVED';
  readonly text: string;
}

/** Starts count from 1; that of a side without lines is the line before it, as in a unified diff. */
export interface DiffHunk {
  readonly fromStart: number;
  readonly fromLines: number;
  readonly toStart: number;
  readonly toLines: number;
  readonly lines: readonly DiffLine[];
}

export interface DiffResult {
  readonly hunks: readonly DiffHunk[];
  /** Whether the limits cut the hunks off. */
  readonly truncated: boolean;
}

/** What one difference may cost. */
export interface DiffLimits {
  /** Milliseconds of search for the shortest difference; then everything between the first and last change is replaced. */
  readonly searchMs: number;
  /** Lines added and removed in the shortest difference, as far as both versions have them. */
  readonly edits: number;
  /** UTF-8 bytes of the answered lines, with a share of their message. */
  readonly bytes: number;
  /** Answered lines. */
  readonly lines: number;
}

/** Fits a message of 4 MiB and is encoded in some tens of milliseconds; the longest line there can be is 3 MiB. */
export const DIFF_LIMITS: DiffLimits = { searchMs: 1000, edits: 5000, bytes: 3_670_016, lines: 20_000 };

const LINE_OVERHEAD = 16;

interface Lines {
  readonly text: string;
  /** Where each line begins, and where the last one ends. */
  readonly starts: readonly number[];
  /** Equal lines have equal numbers. */
  readonly ids: Int32Array;
}

/** A change: lines [fromStart, fromEnd) of the one become lines [toStart, toEnd) of the other, counted from 0. */
interface Change {
  readonly fromStart: number;
  readonly fromEnd: number;
  readonly toStart: number;
  readonly toEnd: number;
}

// A line ends with its "\n"; the last one may have none, and then differs from one that has.
const split = (text: string, numbers: Map<string, number>): Lines => {
  const starts = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  if (starts[starts.length - 1] !== text.length) starts.push(text.length);
  const ids = new Int32Array(starts.length - 1);
  for (let line = 0; line < ids.length; line++) {
    const key = text.slice(starts[line], starts[line + 1]);
    const id = numbers.get(key) ?? numbers.size;
    if (id === numbers.size) numbers.set(key, id);
    ids[line] = id;
  }
  return { text, starts, ids };
};

/** Indices of the lines of a range that the other range has too: the others cannot match anything. */
const shared = (ids: Int32Array, start: number, end: number, others: Int32Array): number[] => {
  const known = new Set(others);
  const kept: number[] = [];
  for (let line = start; line < end; line++) if (known.has(ids[line] as number)) kept.push(line);
  return kept;
};

/** Marks the lines that stay, in both; none of the range when the search costs more than the limits. */
const matchRange = (from: Lines, to: Lines, range: Change, limits: DiffLimits, stay: [Uint8Array, Uint8Array]) => {
  const a = shared(from.ids, range.fromStart, range.fromEnd, to.ids.subarray(range.toStart, range.toEnd));
  const b = shared(to.ids, range.toStart, range.toEnd, from.ids.subarray(range.fromStart, range.fromEnd));
  const parts = diffArrays(
    a.map((line) => from.ids[line]),
    b.map((line) => to.ids[line]),
    { timeout: limits.searchMs, maxEditLength: limits.edits },
  );
  let i = 0;
  let j = 0;
  for (const { added, removed, count } of parts ?? []) {
    for (let n = 0; n < count && !added && !removed; n++) {
      stay[0][a[i + n] as number] = 1;
      stay[1][b[j + n] as number] = 1;
    }
    if (!added) i += count;
    if (!removed) j += count;
  }
};

/** The changes between two texts, in order. */
const changesOf = (from: Lines, to: Lines, limits: DiffLimits): Change[] => {
  const most = Math.min(from.ids.length, to.ids.length);
  let head = 0;
  while (head < most && from.ids[head] === to.ids[head]) head++;
  let tail = 0;
  while (tail < most - head && from.ids[from.ids.length - 1 - tail] === to.ids[to.ids.length - 1 - tail]) tail++;
  const range = { fromStart: head, fromEnd: from.ids.length - tail, toStart: head, toEnd: to.ids.length - tail };
  const stay: [Uint8Array, Uint8Array] = [new Uint8Array(from.ids.length), new Uint8Array(to.ids.length)];
  matchRange(from, to, range, limits, stay);
  const changes: Change[] = [];
  let i = head;
  let j = head;
  while (i < range.fromEnd || j < range.toEnd) {
    const [fromStart, toStart] = [i, j];
    while (i < range.fromEnd && stay[0][i] === 0) i++;
    while (j < range.toEnd && stay[1][j] === 0) j++;
    if (i > fromStart || j > toStart) changes.push({ fromStart, fromEnd: i, toStart, toEnd: j });
    while (i < range.fromEnd && j < range.toEnd && stay[0][i] === 1 && stay[1][j] === 1) {
      i++;
      j++;
    }
  }
  return changes;
};

/** Collects hunks until the limits are reached. */
class HunkWriter {
  readonly hunks: DiffHunk[] = [];
  truncated = false;
  readonly #limits: DiffLimits;
  #bytes = 0;
  #count = 0;

  constructor(limits: DiffLimits) {
    this.#limits = limits;
  }

  /** Writes changes that are near each other as one hunk, with the lines around them. */
  write(from: Lines, to: Lines, group: readonly Change[], context: number) {
    const first = group[0] as Change;
    const last = group[group.length - 1] as Change;
    const before = Math.min(context, first.fromStart, first.toStart);
    const lines: DiffLine[] = [];
    let at = first.fromStart - before;
    for (const change of group) {
      this.#add(lines, 'CONTEXT', from, at, change.fromStart);
      this.#add(lines, 'REMOVED', from, change.fromStart, change.fromEnd);
      this.#add(lines, 'ADDED', to, change.toStart, change.toEnd);
      at = change.fromEnd;
    }
    this.#add(lines, 'CONTEXT', from, at, Math.min(last.fromEnd + context, from.ids.length));
    if (lines.every((line) => line.kind === 'CONTEXT')) return;
    const fromLines = lines.filter((line) => line.kind !== 'ADDED').length;
    const toLines = lines.filter((line) => line.kind !== 'REMOVED').length;
    const fromStart = first.fromStart - before + (fromLines > 0 ? 1 : 0);
    const toStart = first.toStart - before + (toLines > 0 ? 1 : 0);
    this.hunks.push({ fromStart, fromLines, toStart, toLines, lines });
  }

  #add(lines: DiffLine[], kind: DiffLine['kind'], { text, starts }: Lines, start: number, end: number) {
    for (let line = start; line < end && !this.truncated; line++) {
      const slice = text.slice(starts[line], starts[line + 1]);
      this.#bytes += Buffer.byteLength(slice) + LINE_OVERHEAD;
      this.#count += 1;
      this.truncated = this.#bytes > this.#limits.bytes || this.#count > this.#limits.lines;
      if (!this.truncated) lines.push({ kind, text: slice });
    }
  }
}

/**
 * The difference between two texts as hunks of a unified diff, by lines. Where finding the shortest difference costs more
 * than the limits, a longer one is answered; where the answer grows past them, its end is left out and `truncated` set.
 * @param context unchanged lines shown around a change
 */
export const diffTexts = (from: string, to: string, context: number, limits = DIFF_LIMITS): DiffResult => {
  const numbers = new Map<string, number>();
  const [a, b] = [split(from, numbers), split(to, numbers)];
  const writer = new HunkWriter(limits);
  let group: Change[] = [];
  for (const change of changesOf(a, b, limits)) {
    const previous = group[group.length - 1];
    if (previous && change.fromStart - previous.fromEnd > 2 * context) {
      writer.write(a, b, group, context);
      group = [];
    }
    group.push(change);
    if (writer.truncated) break;
  }
  if (group.length > 0 && !writer.truncated) writer.write(a, b, group, context);
  return { hunks: writer.hunks, truncated: writer.truncated };
};
