import type { Libraries } from './libraries.ts';

type Postgres = Libraries['postgres'];

/** A word, a constant or a sign of a statement, and the white space before it. */
interface Piece {
  readonly gap: string;
  readonly text: string;
}

/** What says where in the text something stands. */
const PLACE = /(^|_)(location|start|end|len)$/;
const WIDTH = 120;
const PLAIN = /^[a-z_][a-z0-9_]*$/;
const WORD = /^[A-Za-z_][A-Za-z0-9_$]*$/;
/** What the scanner says of a word that may stand for a name anywhere: no keyword, or an unreserved one. */
const FREE = new Set(['NO_KEYWORD', 'UNRESERVED_KEYWORD']);

/** Writes generated statements as the migrations beside them are written, without changing what they mean. */
export class Formatter {
  readonly #postgres: Postgres;
  readonly #builtIn: ReadonlySet<string>;

  /** @param builtIn the names of `pg_catalog`, which come before the same ones of `jeex` */
  constructor(postgres: Postgres, builtIn: ReadonlySet<string>) {
    this.#postgres = postgres;
    this.#builtIn = builtIn;
  }

  /**
   * A statement in lower case, without needless quotes and prefixes, in lines of bearable length, and without a semicolon;
   * as it was where that would mean something else to the parser.
   */
  format(sql: string): string {
    const statement = sql.trim().replace(/\s*;$/, '');
    const pieces = this.#withoutPrefixes(this.#cut(statement));
    const text = join(pieces);
    if (this.#meaning(text) !== this.#meaning(statement)) return statement;
    return text.includes('\n') ? text : lay(pieces);
  }

  #cut(sql: string): Piece[] {
    // The scanner counts in bytes.
    const bytes = Buffer.from(sql);
    let end = 0;
    return this.#postgres.scanSync(sql).tokens.map((token) => {
      const gap = bytes.subarray(end, token.start).toString();
      end = token.end;
      return { gap, text: this.#word(token.text) };
    });
  }

  #word(text: string): string {
    const [, quoted] = /^"(.*)"$/s.exec(text) ?? [];
    if (quoted === undefined) return WORD.test(text) ? text.toLowerCase() : text;
    return PLAIN.test(quoted) && this.#isFree(quoted) ? quoted : text;
  }

  #isFree(word: string): boolean {
    return FREE.has(this.#postgres.scanSync(word).tokens[0]?.keywordName ?? '');
  }

  /** A migration runs with `jeex` as its search path. */
  #withoutPrefixes(pieces: readonly Piece[]): Piece[] {
    const kept: Piece[] = [];
    for (let index = 0; index < pieces.length; index += 1) {
      const [piece, dot, name] = pieces.slice(index, index + 3);
      const needless =
        piece?.text === 'jeex' &&
        dot?.text === '.' &&
        dot.gap === '' &&
        name &&
        !this.#builtIn.has(unquoted(name.text));
      if (needless && kept.at(-1)?.text !== '.') {
        kept.push({ gap: piece.gap, text: name.text });
        index += 2;
      } else if (piece) kept.push(piece);
    }
    return kept;
  }

  /** The parsed statement, without where things stand in it and without the schema that is searched anyway. */
  #meaning(sql: string): string {
    const neutral = (key: string, value: unknown): unknown => {
      if (key === 'schemaname' || PLACE.test(key)) return undefined;
      return Array.isArray(value) ? value.filter((item) => item?.String?.sval !== 'jeex') : value;
    };
    return JSON.stringify(this.#postgres.parseSync(sql), neutral);
  }
}

const unquoted = (name: string): string => name.replace(/^"(.*)"$/s, '$1').replaceAll('""', '"');

const join = (pieces: readonly Piece[]): string => pieces.map(({ gap, text }) => gap + text).join('');

/** Breaks a long statement where it has blanks, and puts what a table is made of one a line. */
function lay(pieces: readonly Piece[]): string {
  const starts = lineStarts(pieces);
  let laid = '';
  for (const [index, piece] of pieces.entries()) {
    const column = laid.length - laid.lastIndexOf('\n') - 1;
    const tooLong = piece.gap !== '' && column + unbroken(pieces, index) > WIDTH;
    laid += (starts.get(index) ?? (tooLong ? '\n    ' : piece.gap)) + piece.text;
  }
  return laid;
}

/** Where lines begin in the list of a new table's columns and constraints: what stands before the piece of that index. */
function lineStarts(pieces: readonly Piece[]): ReadonlyMap<number, string> {
  const starts = new Map<number, string>();
  if (pieces[0]?.text !== 'create' || pieces[1]?.text !== 'table') return starts;
  let depth = 0;
  for (const [index, { text }] of pieces.entries()) {
    if (text === ')') depth -= 1;
    if (depth === 0 && text === ')') return starts.set(index, '\n');
    if (text === '(') depth += 1;
    if (depth === 1 && (text === ',' || (text === '(' && starts.size === 0))) starts.set(index + 1, '\n  ');
  }
  return starts;
}

/** The length from a piece's blank up to the next one. */
function unbroken(pieces: readonly Piece[], index: number): number {
  const next = pieces.findIndex(({ gap }, at) => at > index && gap !== '');
  return join(pieces.slice(index, next === -1 ? undefined : next)).length;
}
