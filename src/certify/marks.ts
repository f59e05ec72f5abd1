import { randomBytes } from 'node:crypto';
import { Random } from './random.ts';

/** One try of one operation, as a correlation id names it. */
export interface Try {
  readonly operation: number;
  /** From 1; 0 is the operation's request id. */
  readonly attempt: number;
}

/** How many documents an operation writes, or runs it creates, at most. */
const MOST_ENTRIES = 8;

/** One thing of an operation: a document it wrote, or a run it created; 0 is none, since operations begin at 1. */
export const codeOf = (operation: number, entry: number): number => operation * MOST_ENTRIES + entry;
export const operationOf = (code: number): number => Math.floor(code / MOST_ENTRIES);

const UUID = /^([0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3})-([0-9a-f]{8})([0-9a-f]{4})$/;
const WORDS = 'an idea becomes a plan that agents write down version after version until somebody exports it all\n';

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/** Mostly a page of text, sometimes a long one: what agents write. */
const lengthOf = (random: Random): number => {
  const share = random.next();
  if (share < 0.9) return 200 + random.below(1_300);
  return share < 0.985 ? 8_000 : 64_000;
};

/** Signs all that one run sends, so that whatever comes back tells which operation it is from, and whether it is whole. */
export class Marks {
  readonly #prefix: string;
  readonly run: string;

  /** @param run 16 hexadecimal digits: another one for each run, also of the same seed, so that no request id comes twice */
  constructor(run = randomBytes(8).toString('hex')) {
    this.run = run;
    this.#prefix = `${run.slice(0, 8)}-${run.slice(8, 12)}-8${run.slice(12, 15)}-8${run.slice(13, 16)}`;
  }

  /** A UUID (version 8, which is for one's own layout). */
  correlationId({ operation, attempt }: Try): string {
    return `${this.#prefix}-${hex(operation, 8)}${hex(attempt, 4)}`;
  }

  requestId(operation: number): string {
    return this.correlationId({ operation, attempt: 0 });
  }

  /** Null for an id that this run did not make. */
  readCorrelation(id: string): Try | null {
    const [, prefix, operation = '', attempt = ''] = UUID.exec(id) ?? [];
    if (prefix !== this.#prefix) return null;
    return { operation: Number.parseInt(operation, 16), attempt: Number.parseInt(attempt, 16) };
  }

  /** A project's name after an operation. */
  name(operation: number): string {
    return `certify ${this.run} ${operation}`;
  }

  /** The operation that gave a project its name; null for a name that no operation gives. */
  readName(name: string): number | null {
    const operation = Number(name.slice(name.lastIndexOf(' ') + 1));
    return this.name(operation) === name ? operation : null;
  }

  /** The text of one thing: always the same. */
  content(code: number): string {
    const head = `# certify ${this.run} ${code}\n\n`;
    const length = lengthOf(new Random(code));
    return (head + WORDS.repeat(Math.ceil(length / WORDS.length))).slice(0, head.length + length);
  }

  /** What a text was written by; null for a text that is not, to the last letter, what that wrote. */
  readContent(text: string): number | null {
    const [, run, code] = /^# certify ([0-9a-f]{16}) (\d{1,11})\n/.exec(text) ?? [];
    if (run !== this.run || code === undefined) return null;
    return this.content(Number(code)) === text ? Number(code) : null;
  }
}
