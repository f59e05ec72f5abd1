import { hash } from 'node:crypto';
import type { Caller } from '../rpc/access.ts';

/**
 * Callers by the token they have shown, each until its token ends. It holds no token. What was not asked for since half
 * the capacity came in is forgotten: two generations, as a Map in which one key is moved to the end again and again
 * becomes slow.
 */
export class CallerCache {
  readonly #generation: number;
  #recent = new Map<string, Caller>();
  #older = new Map<string, Caller>();

  constructor(capacity: number) {
    this.#generation = Math.ceil(capacity / 2);
  }

  /** @returns undefined for a token that was not seen, or has ended */
  get(token: string): Caller | undefined {
    const key = keyOf(token);
    const caller = this.#recent.get(key) ?? this.#older.get(key);
    if (caller === undefined || (caller.expires !== null && caller.expires <= Date.now())) return undefined;
    if (!this.#recent.has(key)) this.#keep(key, caller);
    return caller;
  }

  set(token: string, caller: Caller): void {
    this.#keep(keyOf(token), caller);
  }

  #keep(key: string, caller: Caller): void {
    if (this.#recent.size >= this.#generation) {
      this.#older = this.#recent;
      this.#recent = new Map();
    }
    this.#recent.set(key, caller);
  }
}

const keyOf = (token: string): string => hash('sha256', token, 'base64');
