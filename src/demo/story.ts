import { isDeepStrictEqual } from 'node:util';
import { CallRefused } from './client.ts';

/** A step that did not do what the story says of it. */
class StoryBroken extends Error {
  constructor(fact: string, instead: string) {
    super(`the demo stops, because this does not hold: ${fact}\n  ${instead}`);
    this.name = 'StoryBroken';
  }
}

/** Tells what happens, and checks it: every fact is either printed with a ✓ or ends the story. */
export class Story {
  /** The facts that were checked, in order. */
  readonly facts: string[] = [];
  readonly #print: (line: string) => void;

  /** @param print takes one line of the story */
  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  chapter(title: string): void {
    this.#print(`\n${title}`);
  }

  say(line: string): void {
    this.#print(`  ${line}`);
  }

  /** A fact that is true. @throws StoryBroken otherwise, saying what was found instead */
  holds(fact: string, truth: boolean, instead = 'it is not so'): void {
    if (!truth) throw new StoryBroken(fact, instead);
    this.facts.push(fact);
    this.#print(`  ✓ ${fact}`);
  }

  /** A fact that is an equality. @throws StoryBroken with both sides */
  same(fact: string, found: unknown, expected: unknown): void {
    this.holds(fact, isDeepStrictEqual(found, expected), `found ${show(found)}, expected ${show(expected)}`);
  }

  /** A fact that is a refusal; answers it. @throws StoryBroken when the call succeeds or fails for another reason */
  async refused(fact: string, reason: string, call: Promise<unknown>): Promise<CallRefused> {
    const failure = await call.then(
      () => null,
      (error: unknown) => error,
    );
    if (failure === null) throw new StoryBroken(fact, `the call succeeded, instead of ${reason}`);
    if (!(failure instanceof CallRefused)) throw failure;
    if (failure.reason !== reason) throw new StoryBroken(fact, `expected ${reason}, and got ${failure.message}`);
    this.holds(fact, true);
    return failure;
  }
}

const show = (value: unknown): string => {
  const text =
    typeof value === 'string' ? value : JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}` : v));
  return text === undefined ? 'nothing' : text.length > 200 ? `${text.slice(0, 200)}…` : text;
};
